"""`/datastore/dataset`: the images and labels as one archive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from lib.server.routes.app_protocol import App
from lib.server.routes.infer import OnceFileResponse

MOST_ARCHIVES = 2
"""Archives of the dataset that exist at a time: each takes as much disk space as the dataset."""

ARCHIVES_BUSY = f"{MOST_ARCHIVES} archives of the dataset are being made or downloaded: try again when one is done"
ARCHIVE_RETRY_SECONDS = 60


def router(app: App) -> APIRouter:
    """Return the route of the archive.

    Args:
        app: Has the datastore.
    """
    routes = APIRouter()
    archives = threading.BoundedSemaphore(MOST_ARCHIVES)

    @routes.get("/dataset", summary="Download images and labels as a ZIP archive", response_class=FileResponse)
    def download_dataset(limit_cases: Annotated[int | None, Query(ge=1)] = None) -> FileResponse:
        if not archives.acquire(blocking=False):
            raise HTTPException(503, ARCHIVES_BUSY, {"Retry-After": str(ARCHIVE_RETRY_SECONDS)})
        try:
            archive = app.datastore().get_dataset_archive(limit_cases)
            return DatasetArchive(archive, archives.release)
        except BaseException:
            archives.release()
            raise

    return routes


class DatasetArchive(OnceFileResponse):
    """An archive of the dataset, which is deleted once it is sent or the client has gone.

    Args:
        file: Its path.
        done: Called when it is deleted.
    """

    def __init__(self, file: str, done: Callable[[], None]) -> None:
        super().__init__(file, media_type="application/zip", filename="dataset.zip")
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done()
