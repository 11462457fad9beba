"""`/datastore/`: images, labels and their records."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, Query, Request, UploadFile
from fastapi.responses import FileResponse
from monailabel.interfaces.datastore import Datastore
from monailabel.utils.others.generic import file_checksum, get_mime_type
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from lib.configs.limits import RequestLimits
from lib.datastores.checks import is_volume
from lib.datastores.metadata import FINAL
from lib.datastores.studies import EXTENSIONS, check_tag
from lib.server.json_checks import JsonError, check_text, read_object
from lib.server.routes.app_protocol import App
from lib.server.routes.form_routes import form_route, sender
from lib.server.routes.infer import OnceFileResponse
from lib.server.routes.label_info import IMAGE_KEYS, LABEL_KEYS, LabelInfo
from lib.temporary import received_file
from lib.validation import explain
from sam3d_label.image.listing import end_of

logger = logging.getLogger(__name__)

MOST_ARCHIVES = 2
"""Archives of the dataset that exist at a time: each takes as much disk space as the dataset."""

ARCHIVES_BUSY = f"{MOST_ARCHIVES} archives of the dataset are being made or downloaded: try again when one is done"
ARCHIVE_RETRY_SECONDS = 60
DIGESTS = ("SHA256", "SHA512", "MD5")
IMAGE_EXAMPLE = '{"client_id": "user-anna"}'
LABEL_EXAMPLE = '{"label_info": [{"name": "tumor", "idx": 1}]}'


class ListingDetail(str, Enum):
    """Content of the response to `GET /datastore/`: counts, pairs to train on, or everything."""

    train = "train"
    stats = "stats"
    all = "all"


Text = Annotated[str, Form()]
Upload = Annotated[UploadFile, File()]
Name = Annotated[str, Query()]


def router(app: App) -> APIRouter:
    """Return the routes under `/datastore`.

    Args:
        app: Has the datastore.
    """
    limits: RequestLimits = app.config
    form = form_route(limits.max_json_bytes, readers=app.readers)
    routes = APIRouter(prefix="/datastore", tags=["Datastore"], route_class=form)
    saving = APIRouter(route_class=form_route(limits.max_json_bytes, readers=app.savers))  # uploads do not delay it

    @routes.get("/", summary="Counts, pairs to train on, or all images and labels")
    def listing(output: ListingDetail = ListingDetail.stats) -> Any:
        store = app.datastore()
        answers: dict[ListingDetail, Callable[[], object]] = {
            ListingDetail.all: store.json,
            ListingDetail.train: store.datalist,
        }
        return answers.get(output, store.status)()

    @routes.put("/", summary="Upload an image", include_in_schema=False, deprecated=True)
    @routes.put("/image", summary="Upload an image")
    def add_image(request: Request, file: Upload, image: str | None = None, params: Text = "{}") -> dict[str, str]:
        info = _without(read_object(params, limits, "params", IMAGE_EXAMPLE), IMAGE_KEYS)
        suffix = suffix_of(file)
        name = image or _stem(file, suffix)
        with received_file(file.file, suffix) as path:
            stored = app.datastore().add_image(check_text(name, limits, "image"), path, _signed(info, request))
        return {"image": stored}

    @routes.delete("/", summary="Remove an image and its labels", include_in_schema=False, deprecated=True)
    @routes.delete("/image", summary="Remove an image and its labels")
    def remove_image(id: Name) -> dict[str, object]:
        app.datastore().remove_image(id)
        return {}

    @routes.head("/image", summary="Whether an image exists")
    def check_image(image: Name, check_sum: str | None = None) -> dict[str, object]:
        file = _image_file(app.datastore(), image)
        if check_sum:
            _check_digest(file, check_sum)
        return {}

    @routes.get("/image", summary="Download an image", response_class=FileResponse)
    def download_image(image: Name) -> FileResponse:
        return _sent(_image_file(app.datastore(), image), image)

    @routes.get("/image/info", summary="The record of an image")
    def image_info(image: Name) -> dict[str, object]:
        return app.datastore().get_image_info(image)

    @routes.put("/image/info", summary="Change the record of an image")
    def update_image_info(request: Request, image: Name, info: Text = "{}") -> None:
        known = _unreserved(read_object(info, limits, "info", IMAGE_EXAMPLE), IMAGE_KEYS)
        app.datastore().update_image_info(image, _signed(known, request))

    @saving.put("/label", summary="Save a label")
    def save_label(
        request: Request, image: Name, label: Upload, params: Text = "{}", tag: str = FINAL
    ) -> dict[str, object]:
        info = label_info(_without(read_object(params, limits, "params", LABEL_EXAMPLE), LABEL_KEYS), "params")
        suffix = suffix_of(label)
        with received_file(label.file, suffix) as path:
            stored = app.datastore().save_label(image, path, tag or FINAL, _signed(info, request))
        more = app.on_save_label(image, stored) or {}
        return {**more, "image": image, "label": stored}

    routes.include_router(saving)

    @routes.delete("/label", summary="Remove a label")
    def remove_label(id: Name, tag: Name) -> dict[str, object]:
        app.datastore().remove_label(id, check_tag(tag))
        return {}

    @routes.head("/label", summary="Whether a label exists")
    def check_label(image: Name, tag: Name) -> dict[str, object]:
        _existing(app.datastore().get_label_uri(image, tag), "label", image)
        return {}

    @routes.get("/label", summary="Download a label", response_class=FileResponse)
    def download_label(label: Name, tag: Name) -> FileResponse:
        return _sent(_existing(app.datastore().get_label_uri(label, tag), "label", label), label)

    @routes.get("/label/info", summary="The record of a label")
    def read_label_info(label: Name, tag: Name) -> dict[str, object]:
        return app.datastore().get_label_info(label, tag)

    @routes.put("/label/info", summary="Change the record of a label")
    def update_label_info(request: Request, label: Name, tag: Name, info: Text = "{}") -> None:
        change_label(request, label, tag, info, "info")

    @routes.put("/updatelabelinfo", summary="The same", include_in_schema=False, deprecated=True)
    def update_label_params(request: Request, label: Name, tag: Name, params: Text = "{}") -> None:
        change_label(request, label, tag, params, "params")

    def change_label(request: Request, label: str, tag: str, text: str, field: str) -> None:
        info = _unreserved(read_object(text, limits, field, LABEL_EXAMPLE), LABEL_KEYS)
        app.datastore().update_label_info(label, tag, _signed(label_info(info, field), request))

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


def suffix_of(upload: UploadFile) -> str:
    """Return the suffix of an uploaded volume's temporary file, one of `EXTENSIONS`.

    Raises:
        HTTPException: 400; the client's name for it ends otherwise.
    """
    name = (upload.filename or "").lower()
    for suffix in EXTENSIONS:
        if name.endswith(suffix):
            return suffix
    shown = f".{name.rpartition('.')[2]}"[:20] if "." in name else "(none)"
    raise HTTPException(400, f"A file of type {shown!r} is not supported: send one of {', '.join(EXTENSIONS)}")


def _stem(upload: UploadFile, suffix: str) -> str:
    """Return the name of an uploaded file without its suffix.

    Raises:
        HTTPException: 400; nothing is left of it.
    """
    name = os.path.basename((upload.filename or "").replace("\\", "/"))[: -len(suffix)]
    if not name:
        raise HTTPException(400, f"The file has no name before its suffix {suffix}: rename it, or add ?image=ID")
    return name


def label_info(info: Mapping[str, object], field: str) -> dict[str, object]:
    """Return the client's record of a label, with checked names and numbers of its structures.

    Raises:
        JsonError: They have another form.
    """
    try:
        known = LabelInfo.model_validate(info)
    except ValidationError as error:
        raise JsonError(f"{field}: {explain(error)}. An example: {LABEL_EXAMPLE}") from None
    return known.model_dump(mode="json", exclude_unset=True)


def _without(info: Mapping[str, object], keys: frozenset[str]) -> dict[str, object]:
    """Drop the keys that only the server may set; clients may send them back."""
    return {key: value for key, value in info.items() if key not in keys}


def _unreserved(info: Mapping[str, object], keys: frozenset[str]) -> Mapping[str, object]:
    reserved = sorted(keys & info.keys())
    if reserved:
        raise JsonError(f"info: {', '.join(reserved)} is set by the server and cannot be changed: leave it out")
    return info


def _signed(info: Mapping[str, object], request: Request) -> Mapping[str, object]:
    """Return the same dictionary with the user who is logged in."""
    user = sender(request)
    return {**info, "user": user} if user else info


def _image_file(store: Datastore, image: str) -> str:
    """Return the path of an image that is listed: the file of one that is not need not be a volume.

    Raises:
        HTTPException: 404; there is no such image.
    """
    return _existing(store.get_image_uri(image) if image in store.list_images() else "", "image", image)


def _existing(file: str, kind: str, name: str) -> str:
    if not file or not is_volume(file):
        raise HTTPException(404, f"There is no {kind} {name[:200]!r} in the datastore")
    return file


def _sent(file: str, name: str) -> FileResponse:
    """Return a file under the id of its image, since a link leads to a file of any name."""
    return FileResponse(file, media_type=get_mime_type(file), filename=f"{name}{end_of(file)}")


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
