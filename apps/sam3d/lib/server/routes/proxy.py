"""The way from OHIF to the DICOM server: DICOMweb requests only, with the server's own credentials."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from functools import partial
from typing import IO
from urllib.parse import unquote, urlsplit

import requests
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response, StreamingResponse
from monailabel.config import settings

from lib.datastores.dicom_client import CONNECT_SECONDS
from lib.server.middleware.access import client_address
from lib.server.routes.form_routes import sender
from lib.server.user_shares import UserShares

PIECE = 256 * 1024
MOST, MOST_OF_ONE = 16, 8
"""Waits for the DICOM server at a time, of all users and of one. They have threads of their own: while that server is
slow, all other routes still respond."""

MOST_ENCODINGS = 8
UID = r"[0-9]+(?:\.[0-9]+)*"
VIEWS = r"/(?:metadata|rendered|thumbnail|pixeldata)"
FRAMES = r"/frames/[0-9]+(?:,[0-9]+)*(?:/(?:rendered|thumbnail))?"
BULK = r"/(?:bulk|bulkdata)(?:/[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*)+"
READABLE = re.compile(
    "studies|series|instances"
    rf"|studies/{UID}(?:/series|/instances|{VIEWS}|{BULK})?"
    rf"|studies/{UID}/series/{UID}(?:/instances|{VIEWS}|{BULK})?"
    rf"|studies/{UID}/series/{UID}/instances/{UID}(?:{FRAMES}|{VIEWS}|{BULK})?"
    r"|bulkdata(?:/[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*)+"
)
"""Paths of QIDO-RS and WADO-RS below the service's root (DICOM PS3.18, chapter 10)."""

STORABLE = re.compile(rf"studies(?:/{UID})?")
"""Paths of STOW-RS."""

ACCEPTED_TYPES = re.compile(
    r"application/(?:dicom|dicom\+json|json|octet-stream)"
    r"|image/(?:jpeg|png|gif|jp2|jpx|jls|jphc|jxl|dicom-rle|x-dicom-rle|x-jls)"
    r"|video/(?:mpeg|mpeg2|mp4)"
)
"""Media types that come back. Types that a browser would run in this server's name, such as HTML and SVG, do not."""

PASSED_ON = {400: 400, 404: 404, 406: 406, 409: 409, 410: 410, 413: 413, 415: 415}
"""Errors of the DICOM server that a client can fix. All others are answered with 502."""


@dataclass(frozen=True)
class ProxyTarget:
    """An allowed request to the DICOM server.

    Attributes:
        url: Its address.
        headers: Headers, of which the client chooses `Accept` and `Content-Type` only.
        auth: User and password.
    """

    url: str
    headers: Mapping[str, str]
    auth: tuple[str, str] | None


def router(_: object) -> APIRouter:
    """Return the routes, at the paths of MONAI Label's endpoints/proxy.py."""
    routes = APIRouter(prefix="/proxy", tags=["Others"])
    shares = UserShares(MOST, MOST_OF_ONE)

    @routes.get("/dicom/{path:path}", include_in_schema=False)
    async def read(request: Request, path: str) -> Response:
        service, below = _service(path)
        if service == "stow":
            raise HTTPException(405, "Files are stored with POST", {"Allow": "POST"})
        return await exchange(request, "GET", service, below, READABLE)

    @routes.post("/dicom/{path:path}", include_in_schema=False)
    async def store(request: Request, path: str) -> Response:
        service, below = _service(path)
        if service == "qido":
            raise HTTPException(405, "Searches are GET requests", {"Allow": "GET"})
        if not (kind := request.headers.get("content-type", "")).lower().startswith("multipart/related"):
            raise HTTPException(415, "DICOM files are stored as multipart/related")
        with tempfile.TemporaryFile() as body:
            async for piece in request.stream():
                body.write(piece)
            body.seek(0)
            return await exchange(request, "POST", "stow", below, STORABLE, {"Content-Type": kind}, body)

    async def exchange(
        request: Request,
        method: str,
        service: str,
        path: str,
        allowed: re.Pattern[str],
        headers: Mapping[str, str] | None = None,
        body: IO[bytes] | None = None,
    ) -> Response:
        user = sender(request) or client_address(request.scope)

        def send() -> requests.Response:
            aim = target(request, service, path, allowed)
            return _send(method, ProxyTarget(aim.url, {**aim.headers, **(headers or {})}, aim.auth), body)

        answer = await shares.run(user, send)
        try:
            return _passed_on(answer, partial(shares.run, user))
        except HTTPException:
            answer.close()
            raise

    return routes


def target(request: Request, service: str, path: str, allowed: re.Pattern[str]) -> ProxyTarget:
    """Return the target of a request.

    Args:
        request: The client's request.
        service: qido, wado or stow; empty for paths without one.
        path: Path below the service.
        allowed: Paths that may be requested.

    Raises:
        HTTPException: 404 when the studies are not on a DICOM server, 400 for another path than DICOMweb has.
    """
    root = settings.MONAI_LABEL_STUDIES.rstrip("/")
    if not root.startswith(("http://", "https://")):
        raise HTTPException(404, "OHIF needs a DICOM server: start with --studies and the address of its DICOMweb")
    path = decoded(path).rstrip("/")
    ends_with_line = request.scope["path"].endswith("\n")  # which Starlette leaves out of the path's parameter
    if ends_with_line or not allowed.fullmatch(path):
        raise HTTPException(400, "This is not a path of DICOMweb, such as studies/1.2.3/series")
    if service == "qido" and path.endswith("/metadata"):  # some versions of OHIF ask the search service for it
        service = "wado"
    prefixes = {
        "qido": settings.MONAI_LABEL_QIDO_PREFIX,
        "wado": settings.MONAI_LABEL_WADO_PREFIX,
        "stow": settings.MONAI_LABEL_STOW_PREFIX,
    }
    parts = [root, (prefixes.get(service) or "").strip("/"), path]
    query = f"?{request.url.query}" if request.url.query else ""
    headers = {"Accept": request.headers.get("accept", "*/*"), "Accept-Encoding": "identity"}
    user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    auth = (user, password) if user and password else None
    if (urlsplit(root).hostname or "").endswith(".googleapis.com"):
        headers["Authorization"], auth = f"Bearer {_google_token()}", None
    return ProxyTarget("/".join(part for part in parts if part) + query, headers, auth)


def decoded(path: str) -> str:
    """Return a path with percent-encoding removed until it no longer changes.

    Raises:
        HTTPException: 400 when it is encoded more than `MOST_ENCODINGS` times: each round reads the whole path, and
            one of 60 kB may be encoded 30,000 times.
    """
    for _ in range(MOST_ENCODINGS + 1):
        if (once := unquote(path)) == path:
            return path
        path = once
    raise HTTPException(400, f"The path is encoded more than {MOST_ENCODINGS} times: send it encoded once")


def is_accepted(content_type: str) -> bool:
    """Return whether a response of this type is passed on to the client."""
    header = Message()
    header["Content-Type"] = content_type
    kind = header.get_content_type()
    if kind == "multipart/related":
        inner = [value for name, value in header.get_params([]) if name.lower() == "type"]
        # Orthanc puts the transfer syntax into the same quotes.
        return len(inner) == 1 and ACCEPTED_TYPES.fullmatch(inner[0].partition(";")[0].strip().lower()) is not None
    return ACCEPTED_TYPES.fullmatch(kind) is not None


def _google_token() -> str:
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request as Transport

    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        credentials.refresh(Transport())
    except GoogleAuthError as error:
        raise HTTPException(503, f"Google gives no credentials for the DICOM server ({type(error).__name__})") from None
    return str(credentials.token)


def _service(path: str) -> tuple[str, str]:
    service, slash, below = path.partition("/")
    return (service, below) if slash and service in ("wado", "qido", "stow") else ("", path)


def _send(method: str, aim: ProxyTarget, body: IO[bytes] | None = None) -> requests.Response:
    timeout = (CONNECT_SECONDS, settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT)
    try:
        return requests.request(
            method,
            aim.url,
            headers=dict(aim.headers),
            auth=aim.auth,
            data=body,
            timeout=timeout,
            stream=True,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise HTTPException(503, f"The DICOM server does not answer ({type(error).__name__})") from None


def _passed_on(answer: requests.Response, run: Callable[[Callable[[], bytes]], Awaitable[bytes]]) -> Response:
    """Return the answer to the client.

    Args:
        answer: Of the DICOM server.
        run: Runs what waits for that server in a thread.

    Raises:
        HTTPException: It is an error, or not to be passed on.
    """
    status, kind = answer.status_code, answer.headers.get("Content-Type", "")
    if status >= 400 and (status not in PASSED_ON or not is_accepted(kind)):
        raise HTTPException(PASSED_ON.get(status, 502), f"The DICOM server answered {status}")
    if 300 <= status < 400:
        raise HTTPException(502, "The DICOM server redirects to another address, which is not followed")
    if status == 204 or answer.headers.get("Content-Length") == "0":
        answer.close()
        return Response(status_code=status)
    if not is_accepted(kind) or any(ord(letter) < 32 for letter in kind):
        raise HTTPException(502, "The DICOM server answered with a type that is neither DICOM, JSON nor an image")
    headers = {"Content-Type": kind}
    if "Content-Encoding" not in answer.headers and "Content-Length" in answer.headers:
        headers["Content-Length"] = answer.headers["Content-Length"]
    return StreamingResponse(_pieces(answer, run), status, headers)


async def _pieces(
    answer: requests.Response, run: Callable[[Callable[[], bytes]], Awaitable[bytes]]
) -> AsyncIterator[bytes]:
    pieces = answer.iter_content(PIECE)
    with answer:
        while piece := await run(lambda: next(pieces, b"")):
            yield piece
