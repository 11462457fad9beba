"""`/model/`: weights come with `--conf weights` and from trainings; they are not replaced over HTTP."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse
from monailabel.utils.others.generic import get_mime_type

from lib.server.routes.app_protocol import App

NOT_OVER_HTTP = "Weights are not taken over HTTP: start the server with --conf weights PATH"


def router(app: App) -> APIRouter:
    """Return the routes under `/model`.

    Args:
        app: Has the models.
    """
    routes = APIRouter(prefix="/model", tags=["Model"])

    @routes.get("/{model}", summary="Download a model's weights", response_class=FileResponse)
    def download(model: str) -> FileResponse:
        file = app.model_file(model)
        if not file or not os.path.isfile(file):
            raise _missing(model)
        name = f"{model}{''.join(Path(file).suffixes)}"
        return FileResponse(file, media_type=get_mime_type(file), filename=name)

    @routes.get("/info/{model}", summary="Checksum and time of a model's weights")
    def info(model: str) -> dict[str, object]:
        found = app.model_info(model)
        if not found:
            raise _missing(model)
        return found

    @routes.put("/{model}", summary="Rejected: weights are not replaced over HTTP")
    def update(model: str) -> None:
        raise HTTPException(400, NOT_OVER_HTTP)

    @routes.delete("/{model}", summary="Rejected: weights are not removed over HTTP")
    def delete(model: str) -> None:
        raise _missing(model)

    return routes


def _missing(model: str) -> HTTPException:
    return HTTPException(404, f"There is no file of the model {model[:100]!r} to download or remove. {NOT_OVER_HTTP}")
