"""What MONAI Label 0.8.5 gets wrong, mended in one place; each piece names what it mends and can go when that does."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import requests
from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from monailabel.config import settings
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.others.generic import get_mime_type, remove_file

from lib.dicomweb import DicomWebDatastore

SOURCE = "https://github.com/Project-MONAI/MONAILabel/blob/0.8.5/monailabel"
"""Where the files lie that are named below."""

OHIF_CONFIG = "app-config.js"


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


def tell_what_was_stopped(endpoint: ModuleType) -> None:
    """A training that is stopped before it wrote a line answers with no line (utils/async_tasks/utils.py).

    Slicer shows the last one, and fails where there is none (plugins/slicer/MONAILabel, onStopTraining).

    Args:
        endpoint: The module whose routes stop it.
    """

    class TalkingTask(endpoint.AsyncTask):  # type: ignore[name-defined]
        @staticmethod
        def stop(method: str) -> Any:
            task = AsyncTask.stop(method)
            return task and {**task, "details": list(task.get("details") or ["stopped before it began"])}

    endpoint.AsyncTask = TalkingTask  # type: ignore[attr-defined]


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


def pass_queries_to_dicom_web(endpoint: ModuleType) -> None:
    """The way to the DICOM server (endpoints/proxy.py) drops queries, waits on the server's one thread, and climbs out.

    Without queries OHIF shows the studies of all patients under each of them (issue 1835); while it waits, nobody else
    is answered; and `..` in a path leads past the DICOMweb service, with its password.

    Args:
        endpoint: The module whose routes lead there.
    """
    ask = inspect.unwrap(endpoint.proxy_dicom)

    @functools.wraps(ask)
    async def proxy_dicom(request: Request, op: str, path: str) -> Response:
        if not settings.MONAI_LABEL_STUDIES.startswith(("http://", "https://")):
            raise HTTPException(404, "OHIF needs a DICOM server: start with --studies and the address of its DICOMweb")
        if ".." in path.split("/"):
            raise HTTPException(400, "A path of a DICOMweb service has no '..'")
        await request.body()  # kept in the request, for the other thread
        if op == "qido" and path.endswith("/metadata"):
            op = "wado"
        query = request.url.query
        full = f"{path}?{query}" if query else path
        try:
            return await run_in_threadpool(lambda: asyncio.run(ask(request, op, full)))
        except requests.RequestException as error:
            reason = f"The DICOM server does not answer ({type(error).__name__})"
            raise HTTPException(503, reason) from None

    endpoint.proxy_dicom = proxy_dicom  # type: ignore[attr-defined]


def serve_ohif_whole(endpoint: ModuleType, extension: Path) -> None:
    """Of OHIF's files, those in subfolders come as the start page (endpoints/ohif.py takes `os.pathsep` for `os.sep`).

    With its configuration comes an extension that mends the mode MONAI Label in the browser.

    Args:
        endpoint: The module whose route serves OHIF.
        extension: The extension's source.
    """
    folder = Path(str(endpoint.__file__)).resolve().parent / "static" / "ohif"
    start_page = inspect.unwrap(endpoint.get_ohif)

    @functools.wraps(start_page)
    def get_ohif(path: str) -> Response:
        if path == OHIF_CONFIG and (folder / path).is_file():
            both = "\n".join(file.read_text(encoding="utf-8") for file in (folder / path, extension))
            return Response(both, media_type="text/javascript")
        file = Path(os.path.normpath(folder / path))
        if file.is_relative_to(folder) and file.is_file():
            return FileResponse(file, media_type=get_mime_type(str(file)))
        page: Response = start_page("")
        return page

    endpoint.get_ohif = get_ohif  # type: ignore[attr-defined]
