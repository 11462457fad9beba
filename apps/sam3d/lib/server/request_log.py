"""A request id, one line in the log for each request, and the answer to an unexpected exception.

The line holds the template of the route (`/infer/{model}`), never its path, query or body: ids of images, names of
files and labels, and comments can name patients.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
import uuid
from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.request_context import CURRENT, NO_ROUTE, RequestRecord

logger = logging.getLogger("sam3d.requests")
HEADER = "X-Request-ID"

WELL_FORMED = re.compile(r"[0-9a-f]{16,32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Ids that a reverse proxy generates, such as nginx's `$request_id`. Words, which could be names, are not accepted."""

BODY_SECONDS = 60.0


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def defect_response(identifier: str) -> JSONResponse:
    """Answer an unexpected exception: the id under which the log has it, and nothing about the server.

    Args:
        identifier: The request id.
    """
    detail = f"The server failed. Its log has the reason under the request id {identifier}: report this id"
    return JSONResponse({"detail": detail, "request_id": identifier}, 500, headers={HEADER: identifier})


class SlowClientError(HTTPException):
    """A client that has stopped to send its request.

    Args:
        seconds: How long nothing has arrived.
    """

    def __init__(self, seconds: float) -> None:
        detail = f"Nothing of the request arrived for {seconds:g} s: send it again, over a faster connection"
        super().__init__(408, detail, headers={"Connection": "close"})


async def _in_time(receive: Receive, seconds: float) -> Message:
    try:
        return await asyncio.wait_for(receive(), seconds)
    except asyncio.TimeoutError:
        raise SlowClientError(seconds) from None


class RequestLog:
    """ASGI middleware, the outermost one: gives every request an id, logs it, and answers unexpected exceptions.

    Args:
        app: The next layer.
        observers: Called with the record of each request after its answer, for metrics.
        body_seconds: A client that sends nothing for so long, although its request is not complete, gets status 408.
    """

    def __init__(
        self,
        app: ASGIApp,
        observers: tuple[Callable[[RequestRecord], object], ...] = (),
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self.app, self.observers, self.body_seconds = app, observers, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = _begin(scope)
        token = CURRENT.set(record)
        scope.setdefault("state", {})["request_id"] = record.id
        began, started, complete = time.perf_counter(), False, False

        async def counted_receive() -> Message:
            nonlocal complete
            message = await (receive() if complete else _in_time(receive, self.body_seconds))
            complete = not message.get("more_body", False)
            record.bytes_in += len(message.get("body") or b"")
            return message

        async def counted_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started, record.status = True, message["status"]
                MutableHeaders(scope=message)[HEADER] = record.id
            elif message["type"] == "http.response.body":
                record.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, counted_receive, counted_send)
        except SlowClientError as error:
            record.status = error.status_code
            if started:
                raise
            closing = {"Connection": "close"}
            answer = {"detail": error.detail, "request_id": record.id}
            await JSONResponse(answer, error.status_code, headers=closing)(scope, receive, counted_send)
        except Exception:
            record.status = 500
            logger.exception("Unexpected exception")
            if started:  # the client has a part of the answer: only closing the connection shows that it is not whole
                raise
            await defect_response(record.id)(scope, receive, counted_send)
        finally:
            record.seconds = time.perf_counter() - began
            _end(scope, record)
            for observe in self.observers:
                observe(record)
            logger.info("request", extra={"request": record.as_log()})
            CURRENT.reset(token)


def _begin(scope: Scope) -> RequestRecord:
    given = Headers(scope=scope).get(HEADER, "").lower()
    identifier = given if WELL_FORMED.fullmatch(given) else uuid.uuid4().hex
    method = scope["method"] if scope["method"] in METHODS else "OTHER"
    return RequestRecord(identifier, method, _sent_in_url(scope))


def _sent_in_url(scope: Scope) -> tuple[str, ...]:
    """Return the values in the query that are long enough to identify a person, the longest first."""
    query = scope.get("query_string", b"").decode("latin-1")
    values = {value for _, value in parse_qsl(query) if len(value) > 2}
    return tuple(sorted(values, key=len, reverse=True))


def _end(scope: Scope, record: RequestRecord) -> None:
    route = scope.get("route")
    record.route = getattr(route, "path", None) or NO_ROUTE
    identity = scope.get("state", {}).get("identity")
    if identity is not None:
        record.role = identity.role.name.lower()
        record.user = None if identity.anonymous else user_hash(identity.name)


def user_hash(name: str) -> str:
    """Return the hash of a user's name for the log.

    Args:
        name: The name of an API key, or the user name of a login.
    """
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:12]
