"""OHIF, as MONAI Label brings it, with an extension that completes its mode for MONAI Label."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import monailabel.endpoints
from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, Response
from monailabel.utils.others.generic import get_mime_type

FOLDER = Path(monailabel.endpoints.__file__).resolve().parent / "static" / "ohif"
CONFIG = "app-config.js"
EXTENSION = Path(__file__).resolve().parents[3] / "page" / "ohif.js"


def router(_: Any) -> APIRouter:
    """Return the route, at the path of MONAI Label's endpoints/ohif.py."""
    routes = APIRouter(prefix="/ohif", tags=["Others"])

    @routes.get("/{path:path}", include_in_schema=False)
    def file(path: str) -> Response:
        return ohif_file(FOLDER, EXTENSION, path)

    return routes


def ohif_file(folder: Path, extension: Path, path: str) -> Response:
    """Return a file of OHIF; its start page for any other path, since its own router reads those.

    Args:
        folder: OHIF's files.
        extension: Script that is sent after OHIF's configuration, with the scripts in the folder of its name before it.
        path: Path below the folder.

    Raises:
        HTTPException: 404 when OHIF is not installed.
    """
    if path == CONFIG and (folder / path).is_file():
        scripts = (folder / path, *sorted(extension.with_suffix("").glob("*.js")), extension)
        content = "\n".join(script.read_text(encoding="utf-8") for script in scripts)
        return Response(content, media_type="text/javascript")
    start_page = folder / "index.html"
    wanted = Path(os.path.normpath(folder / path)) if "\0" not in path else start_page
    for candidate in (wanted, start_page):
        if candidate.is_relative_to(folder) and candidate.is_file():
            return FileResponse(candidate, media_type=get_mime_type(str(candidate)))
    raise HTTPException(404, "This installation of MONAI Label has no OHIF")
