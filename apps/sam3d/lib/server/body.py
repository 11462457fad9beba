"""Bodies of requests: their size is counted while they arrive, and JSON is checked before any route reads it."""

from __future__ import annotations

import time
from email.message import Message as Header
from typing import Protocol

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.configs.limits import RequestLimits
from lib.errors import body as body_of
from lib.server.access.identity import Role
from lib.server.json_checks import JsonError, read_json

DRAIN_BYTES, DRAIN_SECONDS = 64 * 2**20, 10.0
"""Bytes of a rejected body that are read and dropped: most clients read the response after they have sent the body."""

VISITOR_BYTES = 64 * 1024
"""Size of a body without a login: a form with a name and a key."""

FORM_OVERHEAD = 64 * 1024
"""Bytes of a form in addition to its files: boundaries, headers of the parts, short fields."""


class TooLarge(HTTPException):
    """A body that exceeds a limit. FastAPI answers it like any HTTP error when it is raised while a route reads."""

    def __init__(self, limit: int, reason: str) -> None:
        size = f"{limit / 2**20:.4g} MiB" if limit >= 2**20 else f"{limit / 1024:.4g} KiB"
        super().__init__(413, f"The request is larger than the {size} that are allowed ({reason})")


class BodyLimit:
    """ASGI middleware that rejects bodies that are too large (413) and JSON that is not strict (400).

    A route never sees more bytes than are allowed, whether the client announced the length or sends chunks.

    Args:
        app: The next ASGI app.
        limits: Limits of a body.
    """

    def __init__(self, app: ASGIApp, limits: RequestLimits) -> None:
        self.app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        kind = media_type(headers)
        limit, reason = self._limit(kind)
        if getattr(scope.get("state", {}).get("identity"), "role", None) == Role.NOBODY and limit > VISITOR_BYTES:
            limit, reason = VISITOR_BYTES, "log in to send more"
        try:
            announced = int(headers.get("content-length") or 0)
        except ValueError:
            announced = 0
        counting = _Counting(receive, limit, reason)
        try:
            if announced > limit:
                await counting.drain()
                raise TooLarge(limit, reason)
            if is_json(kind) and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
                body = await counting.whole()
                if body:
                    read_json(body, self._limits)
                return await self.app(scope, _replay(body, receive), send)
        except JsonError as error:
            return await JSONResponse(body_of(str(error)), 400)(scope, receive, send)
        except TooLarge as error:
            return await JSONResponse(body_of(error.detail), 413)(scope, receive, send)
        await self.app(scope, counting, send)

    def _limit(self, kind: str) -> tuple[int, str]:
        """Return the largest body of a media type in bytes, and the `--conf` key that sets it."""
        if is_json(kind):
            return self._limits.max_json_bytes, "--conf max_json_kb"
        if kind == "application/x-www-form-urlencoded":
            return 3 * self._limits.max_json_bytes + FORM_OVERHEAD, "--conf max_json_kb"
        return self._limits.max_upload_bytes + FORM_OVERHEAD, "--conf max_upload_mb"


class LimitedApp(Protocol):
    """The part of the app that sets the limits."""

    @property
    def config(self) -> RequestLimits:
        """The configuration."""


def body_limit(app: LimitedApp) -> Middleware:
    """Return the middleware with the limits of the app's configuration."""
    return Middleware(BodyLimit, limits=app.config)


def media_type(headers: Headers) -> str:
    """Return the media type of a body in lower case; empty where the client names none."""
    header = Header()
    header["content-type"] = headers.get("content-type", "")
    return header.get_content_type() if headers.get("content-type") else ""


def is_json(kind: str) -> bool:
    """Return whether FastAPI reads a body of this media type as JSON."""
    main, _, sub = kind.partition("/")
    return not kind or (main == "application" and (sub == "json" or sub.endswith("+json")))


class _Counting:
    """ASGI `receive` that raises `TooLarge` when more bytes than allowed have arrived."""

    def __init__(self, receive: Receive, limit: int, reason: str) -> None:
        self._receive, self._limit, self._reason = receive, limit, reason
        self._count = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._count += len(message.get("body", b""))
        if self._count > self._limit:
            if message.get("more_body"):
                await self.drain()
            raise TooLarge(self._limit, self._reason)
        return message

    async def whole(self) -> bytes:
        """Return the body, or the received part if the client disconnects."""
        chunks = []
        more = True
        while more:
            message = await self()
            chunks.append(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)
        return b"".join(chunks)

    async def drain(self) -> None:
        """Read and drop the rest of the body, within bounds, so that the client reads the response."""
        end, dropped = time.monotonic() + DRAIN_SECONDS, 0
        while dropped < DRAIN_BYTES and time.monotonic() < end:
            message = await self._receive()
            dropped += len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                return


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return an ASGI `receive` that returns a body that was read already, then the next event (a disconnect)."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again
