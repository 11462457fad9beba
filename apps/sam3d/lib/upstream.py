"""What MONAI Label 0.8.5 gets wrong, mended in one place; each piece names what it mends and can go when that does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from fastapi import HTTPException
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.others.generic import remove_file

from lib.dicomweb import DicomWebDatastore

SOURCE = "https://github.com/Project-MONAI/MONAILabel/blob/0.8.5/monailabel"
"""Where the files lie that are named below."""


def allow_background_tasks_without_pythonpath() -> None:
    """Background tasks read $PYTHONPATH unguarded (utils/async_tasks/utils.py) and would end without a word."""
    os.environ.setdefault("PYTHONPATH", "")


def check_before_starting(endpoint: ModuleType, check: Callable[[Mapping[str, Any]], object]) -> None:
    """What takes long is started in another process whatever the request holds (utils/async_tasks/task.py).

    A mistake would be found there, by nobody. It is refused before that.

    Args:
        endpoint: The module whose routes start it.
        check: Raises for a request that would fail.
    """

    class CheckedTask(AsyncTask):
        @staticmethod
        def run(
            method: str, request: Any = None, params: Any = None, force_sync: bool = False, enqueue: bool = False
        ) -> Any:
            check({**(request or {}), **(params or {})})
            return AsyncTask.run(method, request, params, force_sync, enqueue)

    endpoint.AsyncTask = CheckedTask  # type: ignore[attr-defined]


def send_dicom_seg(endpoint: ModuleType, store: DicomWebDatastore, names: Sequence[str]) -> None:
    """Lets `output=dicom_seg` of endpoints/infer.py work on our datastore, without dcmqi, and leave no file behind.

    It knows its own datastore only, has dcmqi write the file, names segments by position, and deletes neither the
    file after it is sent nor the mask when that fails. It asks for `label_info`; without it, the mask is what was
    asked for.

    Args:
        endpoint: The module whose route sends it.
        store: The datastore.
        names: Of what the app segments.
    """
    run, respond = endpoint.run_inference, endpoint.send_response

    def run_inference(
        background_tasks: Any, model: str, image: str = "", session_id: str = "", params: str = "{}", *rest: Any
    ) -> Any:
        if rest and rest[-1] == "dicom_seg":
            if session_id or not image:
                raise HTTPException(400, "A DICOM SEG refers to a series of the DICOM server: name it as image")
            params = _with_label_info(params, names)
        return run(background_tasks, model, image, session_id, params, *rest)

    def nifti_to_dicom_seg(series_dir: str, label: str, label_info: Any, **_: Any) -> str:
        try:
            return store.seg_file(os.path.basename(series_dir), label, {"label_info": label_info})
        except BaseException:
            remove_file(label)
            raise

    def send_response(datastore: Any, result: dict[str, Any], output: Any, background_tasks: Any) -> Any:
        if result.get("dicom_seg"):
            background_tasks.add_task(remove_file, result["dicom_seg"])
        return respond(datastore, result, output, background_tasks)

    changed: dict[str, Any] = {
        "run_inference": run_inference,
        "send_response": send_response,
        "nifti_to_dicom_seg": nifti_to_dicom_seg,
        "DICOMWebDatastore": type(store),
    }
    for name, value in changed.items():
        setattr(endpoint, name, value)


def _with_label_info(params: str, names: Sequence[str]) -> str:
    given = json.loads(params) if params else {}
    if isinstance(given, dict) and not given.get("label_info"):
        name = given.get("label")
        given["label_info"] = [{"name": name if isinstance(name, str) and name else names[0], "idx": 1}]
    return json.dumps(given)
