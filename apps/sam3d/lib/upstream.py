"""What MONAI Label 0.8.5 gets wrong, mended in one place; each piece names what it mends and can go when that does."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import requests
from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from monailabel.config import settings
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.others.generic import get_mime_type

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
