"""`/datastore/image`: images and their records."""

from __future__ import annotations

import os

from fastapi import APIRouter, HTTPException, Request, UploadFile
from fastapi.responses import FileResponse
from monailabel.interfaces.datastore import Datastore
from monailabel.utils.others.generic import file_checksum

from lib.server.json_checks import check_text, read_object
from lib.server.routes.app_protocol import App
from lib.server.routes.client_records import IMAGE_KEYS, signed, unreserved, without
from lib.server.routes.form_routes import form_route
from lib.server.routes.volume_files import Name, Text, Upload, existing, sent, suffix_of
from lib.temporary import received_file

DIGESTS = ("SHA256", "SHA512", "MD5")
EXAMPLE = '{"client_id": "user-anna"}'


def router(app: App) -> APIRouter:
    """Return the routes of images.

    Args:
        app: Has the datastore.
    """
    limits = app.config
    routes = APIRouter(route_class=form_route(limits.max_json_bytes, readers=app.readers))

    @routes.put("/", summary="Upload an image", include_in_schema=False, deprecated=True)
    @routes.put("/image", summary="Upload an image")
    def add_image(request: Request, file: Upload, image: str | None = None, params: Text = "{}") -> dict[str, str]:
        info = without(read_object(params, limits, "params", EXAMPLE), IMAGE_KEYS)
        suffix = suffix_of(file)
        name = image or _stem(file, suffix)
        with received_file(file.file, suffix) as path:
            stored = app.datastore().add_image(check_text(name, limits, "image"), path, signed(info, request))
        return {"image": stored}

    @routes.delete("/", summary="Remove an image and its labels", include_in_schema=False, deprecated=True)
    @routes.delete("/image", summary="Remove an image and its labels")
    def remove_image(id: Name) -> dict[str, object]:
        app.datastore().remove_image(id)
        return {}

    @routes.head("/image", summary="Whether an image exists")
    def check_image(image: Name, check_sum: str | None = None) -> dict[str, object]:
        file = image_file(app.datastore(), image)
        if check_sum:
            _check_digest(file, check_sum)
        return {}

    @routes.get("/image", summary="Download an image", response_class=FileResponse)
    def download_image(image: Name) -> FileResponse:
        return sent(image_file(app.datastore(), image), image)

    @routes.get("/image/info", summary="The record of an image")
    def image_info(image: Name) -> dict[str, object]:
        return app.datastore().get_image_info(image)

    @routes.put("/image/info", summary="Change the record of an image")
    def update_image_info(request: Request, image: Name, info: Text = "{}") -> None:
        known = unreserved(read_object(info, limits, "info", EXAMPLE), IMAGE_KEYS)
        app.datastore().update_image_info(image, signed(known, request))

    return routes


def _stem(upload: UploadFile, suffix: str) -> str:
    """Return the name of an uploaded file without its suffix.

    Raises:
        HTTPException: 400; nothing is left of it.
    """
    name = os.path.basename((upload.filename or "").replace("\\", "/"))[: -len(suffix)]
    if not name:
        raise HTTPException(400, f"The file has no name before its suffix {suffix}: rename it, or add ?image=ID")
    return name


def image_file(store: Datastore, image: str) -> str:
    """Return the path of an image that is listed: the file of one that is not need not be a volume.

    Raises:
        HTTPException: 404; there is no such image.
    """
    return existing(store.get_image_uri(image) if image in store.list_images() else "", "image", image)


def _check_digest(file: str, check_sum: str) -> None:
    """Compare a file with `ALGORITHM:DIGEST`, or with a SHA256 digest.

    Raises:
        HTTPException: 404; it is another file. 400; the algorithm is unknown.
    """
    algorithm, _, digest = check_sum.rpartition(":")
    algorithm = algorithm or "SHA256"
    if algorithm not in DIGESTS:
        raise HTTPException(400, f"check_sum: {algorithm[:20]!r} is not offered: use {', '.join(DIGESTS)}")
    if file_checksum(file, algorithm) != f"{algorithm}:{digest.lower()}":
        raise HTTPException(404, "Image NOT Found (checksum failed)")
