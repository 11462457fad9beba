"""OHIF, as MONAI Label brings it, with an extension that completes its mode for MONAI Label."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import monailabel.endpoints
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, Response
from monailabel.utils.others.generic import get_mime_type

from lib.server.paths import base_of

FOLDER = Path(monailabel.endpoints.__file__).resolve().parent / "static" / "ohif"
CONFIG = "app-config.js"
START = "index.html"
EXTENSION = Path(__file__).resolve().with_suffix("")
LAST = "extension.js"
"""Uses what the other scripts define, so it follows them."""

TEXTS = (".html", ".js", ".css", ".json")
"""Files that may hold paths of this server."""

OWN_PATH = re.compile(r"""(?<=["'(=])/(?=(?:ohif|proxy)/)""")
"""The slash at the beginning of paths that OHIF was built with."""

HASHED = re.compile(r"\.[0-9a-f]{20}\.js$")
A_DAY = {"Cache-Control": "private, max-age=86400"}


def router(_: object) -> APIRouter:
    """Return the route, at the path of MONAI Label's endpoints/ohif.py."""
    routes = APIRouter(prefix="/ohif", tags=["Others"])

    @routes.get("/{path:path}", include_in_schema=False)
    def file(request: Request, path: str) -> Response:
        return ohif_file(FOLDER, EXTENSION, path, base_of(request.scope))

    return routes


def ohif_file(folder: Path, extension: Path, path: str, base: str = "") -> Response:
    """Return a file of OHIF; its start page for any other path, since its own router reads those.

    Args:
        folder: OHIF's files.
        extension: Folder of the scripts that are sent after OHIF's configuration.
        path: Path below the folder.
        base: Path prefix of this server, which is put in front of the paths in OHIF's files.

    Raises:
        HTTPException: 404 when OHIF is not installed.
    """
    if path == CONFIG and (folder / path).is_file():
        files = sorted(extension.glob("*.js"), key=lambda file: (file.name == LAST, file.name))
        scripts = (file.read_text(encoding="utf-8") for file in files)
        content = "\n".join((with_prefix(folder / path, base), *scripts))
        return Response(content, media_type="text/javascript")
    start_page = folder / START
    wanted = Path(os.path.normpath(folder / path)) if "\0" not in path else start_page
    for candidate in (wanted, start_page):
        if candidate.is_relative_to(folder) and candidate.is_file():
            kind = get_mime_type(str(candidate))
            if base and candidate.suffix in TEXTS:
                headers = A_DAY if HASHED.search(candidate.name) else None
                return Response(with_prefix(candidate, base), media_type=kind, headers=headers)
            return FileResponse(candidate, media_type=kind)
    raise HTTPException(404, "This installation of MONAI Label has no OHIF")


def start_page(base: str = "") -> str:
    """Return OHIF's start page for a server at a path prefix; empty when OHIF is not installed."""
    return with_prefix(FOLDER / START, base) if (FOLDER / START).is_file() else ""


@lru_cache(maxsize=64)
def with_prefix(file: Path, base: str) -> str:
    """Return a text file of OHIF, whose paths begin with a prefix.

    Args:
        file: The file.
        base: The prefix, empty or with a slash at its beginning.
    """
    text = file.read_text(encoding="utf-8")
    return OWN_PATH.sub(f"{base}/", text) if base else text
