"""`/infer/{model}`: one mask, computed by the inference pool without blocking the event loop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Protocol

from anyio import open_file
from fastapi import APIRouter, File, Form, HTTPException, Query, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from monailabel.interfaces.datastore import Datastore
from monailabel.utils.others.generic import get_mime_type
from requests_toolbelt import MultipartEncoder
from starlette.types import Receive, Scope, Send

from lib.configs.app_config import AppConfig
from lib.datastores.dicomweb import DicomWebDatastore
from lib.infers.answer import AnswerParams, InferResult
from lib.infers.sam3d import VolumeTask, resolve_device
from lib.requests import all_clicks, check_request, saves_label
from lib.server.inference_pool import InferencePool, OvertakenError, QueueFullError, ShareFullError, Turn
from lib.server.json_checks import check_text, read_object
from lib.server.middleware.access import client_address
from lib.server.routes.form_routes import form_route
from lib.server.routes.sessions import find_session
from lib.server.uploads.sessions import SafeSessions
from sam3d_label.errors import PromptError
from sam3d_label.segmentation.cancellation import WorkCancelledError

EXAMPLE = '{"foreground": [[i, j, k]]}'
CHUNK = 2**18
CLIENT_CLOSED_REQUEST = 499
RETRY_AFTER_SECONDS = 5

BUSY = "The server is busy: {error}. Send the request again in a few seconds"
SHARE_FULL = "{error}, as many as one user may have: wait for their answers, then send the request again"
OVERTAKEN = "This request was not computed: a newer request of yours for the same image and label has replaced it"
UPLOAD_FIRST = "An image is named by its id and not sent with the request: upload it first, as a session"


class ResultType(str, Enum):
    """Content of the response: the mask, its description, both as a form, or the mask as a DICOM SEG."""

    image = "image"
    json = "json"
    all = "all"
    dicom_seg = "dicom_seg"


class InferApp(Protocol):
    """The parts of `SAM3DApp` behind the route."""

    config: AppConfig
    pool: InferencePool

    def infer(self, request: Mapping[str, object]) -> InferResult:
        """Run a model on one image."""

    def models(self) -> Mapping[str, VolumeTask]:
        """Models by name."""

    def datastore(self) -> Datastore:
        """Return images and labels."""

    def sessions(self) -> SafeSessions | None:
        """Return the sessions; None if they are switched off."""


@dataclass(frozen=True)
class CheckedRequest:
    """A request that was checked.

    Attributes:
        request: For the app: `model`, `image` or `session`, and the client's `params`.
        device: Name of the device that computes it.
        volume: Key of the volume.
        turn: The waiting requests that it replaces.
        user: The sender.
    """

    request: dict[str, object]
    device: str
    volume: Hashable
    turn: Turn | None
    user: tuple[str, str]


def router(app: InferApp) -> APIRouter:
    """Return the route under `/infer`.

    Args:
        app: Has the models and the pool.
    """
    routes = APIRouter(prefix="/infer", tags=["Infer"], route_class=form_route(app.config.max_json_bytes))
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("multipart/form-data", "*/*")}

    @routes.post("/{model}", summary="Run a model on one image", responses={200: {"content": content}})
    async def run(
        http: Request,
        model: str,
        image: Annotated[str, Query()] = "",
        session_id: Annotated[str, Query()] = "",
        output: Annotated[ResultType | None, Query()] = None,
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        label: Annotated[UploadFile | None, File()] = None,
    ) -> Response:
        if file is not None:
            raise HTTPException(400, UPLOAD_FIRST)
        asked = await run_in_threadpool(_check_request, app, http, model, image, session_id, params, output)
        try:
            answer = await app.pool.run(
                lambda: _compute(app, asked.request, output),
                device=asked.device,
                volume=asked.volume,
                turn=asked.turn,
                user=asked.user,
                gone=lambda: _gone(http),
                discard=lambda answer: answer.remove(),
            )
        except QueueFullError as error:
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            raise HTTPException(503, BUSY.format(error=error), headers) from None
        except ShareFullError as error:
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            raise HTTPException(429, SHARE_FULL.format(error=error), headers) from None
        except OvertakenError:
            raise HTTPException(409, OVERTAKEN) from None
        except WorkCancelledError:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return answer.response(output)

    return routes


@dataclass(frozen=True)
class ModelAnswer:
    """The result of a model.

    Attributes:
        file: Path of a temporary file with the mask, empty if there is none.
        params: The JSON part.
    """

    file: str
    params: AnswerParams

    def remove(self) -> None:
        """Delete the file of a cancelled answer."""
        if self.file:
            Path(self.file).unlink(missing_ok=True)

    def response(self, output: ResultType | None) -> Response:
        """Return the HTTP answer, which deletes the file once it is sent or the client has gone."""
        if output == ResultType.json or not self.file:
            self.remove()
            return JSONResponse(self.params)
        if output == ResultType.dicom_seg:
            return OnceFileResponse(self.file, media_type="application/dicom", filename=os.path.basename(self.file))
        if output == ResultType.image:
            kind = get_mime_type(self.file)
            return OnceFileResponse(self.file, media_type=kind, filename=os.path.basename(self.file))
        return FormResponse(self.file, self.params)


class OnceFileResponse(FileResponse):
    """A file that is deleted once it is sent, or the client has gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)


class FormResponse(StreamingResponse):
    """A form with the JSON part and a file, which is deleted once it is sent, or the client has gone.

    Args:
        file: Path of the file.
        params: The JSON part.
    """

    def __init__(self, file: str, params: Mapping[str, object]) -> None:
        self._file = file
        head, tail, kind = _frame(file, params)
        length = len(head) + os.path.getsize(file) + len(tail)
        headers = {"Content-Length": str(length), "Content-Type": kind}
        super().__init__(_chunks(head, file, tail), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self._file).unlink(missing_ok=True)


def _frame(file: str, params: Mapping[str, object]) -> tuple[bytes, bytes, str]:
    """Return the parts of the form before and after the file, and the form's media type."""
    mark = b"\0the file\0"
    fields = {
        "params": (None, JSONResponse(params).body, "application/json"),
        "image": (os.path.basename(file), mark, get_mime_type(file)),
    }
    form = MultipartEncoder(fields=fields)
    head, _, tail = bytes(form.to_string()).partition(mark)
    return head, tail, str(form.content_type)


async def _chunks(head: bytes, file: str, tail: bytes) -> AsyncIterator[bytes]:
    yield head
    async with await open_file(file, "rb") as content:
        while chunk := await content.read(CHUNK):
            yield chunk
    yield tail


async def _gone(http: Request) -> None:
    """Return once the client has closed the connection; its form was read before."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _check_request(
    app: InferApp, http: Request, model: str, image: str, session_id: str, params: str, output: ResultType | None
) -> CheckedRequest:
    limits, labels = app.config, app.config.labels
    if not image and not session_id:
        raise HTTPException(400, "Neither Image nor Session ID: give the id of a stored image, or a session_id")
    for name, value in (("model", model), ("image", image), ("session_id", session_id)):
        check_text(value, limits, name)
    models = app.models()
    if model not in models:
        raise HTTPException(404, f"There is no model {model!r}; this server offers: {', '.join(models) or 'none'}")
    given = read_object(params, limits, "params", EXAMPLE)
    check_request(given, labels=labels, config=models[model].info()["config"], max_clicks=limits.max_clicks)
    if output == ResultType.dicom_seg:
        _check_dicom_seg(app.datastore(), image, session_id)
        if given.get("result", "mask") != "mask":
            raise HTTPException(400, "A DICOM SEG holds a mask: leave out result, or request another output")
    request: dict[str, object] = {**given, "model": model, "image": image}
    if session_id:
        request["session"] = {"name": find_session(app, http, session_id).name}
    user = _user(http, request)
    turn = _turn(user, request, labels)
    return CheckedRequest(request, _device(given.get("device")), (image, session_id), turn, user)


def _check_dicom_seg(store: Datastore, image: str, session_id: str) -> None:
    if not isinstance(store, DicomWebDatastore):
        raise HTTPException(400, "DICOM SEG format is not supported in a non-DICOM datastore")
    if session_id or not image:
        raise HTTPException(400, "A DICOM SEG refers to a series of the DICOM server: name it as image")


def _device(name: object) -> str:
    """Return the device that queues a request; the model rejects a device that does not exist, with the reason."""
    first = name[0] if isinstance(name, list) and name else name
    try:
        return resolve_device(first if isinstance(first, str) and first else None)
    except PromptError:
        return resolve_device(None)


def _user(http: Request, request: Mapping[str, object]) -> tuple[str, str]:
    """Return the sender of a request, and its source: login, `client_id` or address."""
    identity = getattr(http.state, "identity", None)
    if identity is not None and not identity.anonymous:
        return "name", identity.name
    if isinstance(client := request.get("client_id"), str) and client:
        return "client_id", client
    return "address", client_address(http.scope)


def _turn(user: tuple[str, str], request: Mapping[str, object], labels: tuple[str, ...]) -> Turn | None:
    """Return the waiting requests that this one replaces: earlier ones of the user for the same image, model and label.

    A request that saves its mask is always computed. OHIF does not say who the user is, and two of them can share an
    address.
    """
    if saves_label(request):
        return None
    about = [request.get(key) for key in ("model", "image", "session", "label", "label_prompt", "result")]
    if user[0] != "address":
        return Turn((*user, repr(about)))
    clicks = all_clicks(request, labels=labels)
    return Turn((*user, repr(about)), clicks) if clicks else None


def _compute(app: InferApp, request: dict[str, object], output: ResultType | None) -> ModelAnswer:
    result = app.infer(request)
    answer = ModelAnswer(result["file"], result["params"])
    if output != ResultType.dicom_seg:
        return answer
    store = app.datastore()
    assert isinstance(store, DicomWebDatastore)
    try:
        info = {"label_info": request.get("label_info") or [{"name": _label(request, app), "idx": 1}]}
        return ModelAnswer(store.seg_file(str(request["image"]), answer.file, info), answer.params)
    finally:
        answer.remove()


def _label(request: Mapping[str, object], app: InferApp) -> str:
    label = request.get("label")
    return label if isinstance(label, str) and label else app.config.labels[0]
