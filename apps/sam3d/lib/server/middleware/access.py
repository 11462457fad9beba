"""Lets a request pass when its sender has the role that its route needs."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import anyio.to_thread
from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lib.errors import body
from lib.server.access.identity import LOCAL_USER, VISITOR, Identity, Role
from lib.server.access.login import COOKIE, Login, unauthorized
from lib.server.access.roles import needed_role
from lib.server.paths import base_of, path_of

LOGIN_PAGE = "/sam3d/login"
VERIFYING = 8
"""Tokens of the provider that are verified at a time; its keys may have to be fetched."""


class Access:
    """Sets `request.state.identity`, and returns 401 or 403 if the route requires more.

    Args:
        app: The next layer.
        login: The server's login; without one, everybody is `LOCAL_USER`.
        prefix: Path prefix of MONAI Label's routes.
    """

    def __init__(self, app: ASGIApp, login: Login | None, prefix: str = "") -> None:
        self.app = app
        self._login = login
        self._prefix = prefix
        self._limiter: anyio.CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        needed = needed_role(scope["method"], path_of(scope, self._prefix))
        try:
            identity = await self._identity(scope, needed)
            if identity.role < needed:
                raise HTTPException(403, f"{identity.name} is {_article(identity.role)}; this needs an admin")
        except HTTPException as error:
            await _answer(error, scope)(scope, receive, send)
            return
        scope.setdefault("state", {})["identity"] = identity
        await self.app(scope, receive, send)

    async def _identity(self, scope: Scope, needed: Role) -> Identity:
        if self._login is None:
            return LOCAL_USER
        headers = Headers(scope=scope)
        identity = None
        try:
            if token := bearer_token(headers):
                identity = await self._from_bearer(token, client_address(scope))
            elif cookie := cookie_value(headers, cookie_name(scope)):
                identity = self._login.from_cookie(cookie)
        except HTTPException:
            if needed > Role.NOBODY:
                raise
        if identity is None:
            if needed > Role.NOBODY:
                raise unauthorized("Log in, or send an API key as 'Authorization: Bearer KEY'")
            return VISITOR
        return identity

    async def _from_bearer(self, token: str, address: str) -> Identity:
        assert self._login is not None
        if self._login.oidc is None or token.count(".") != 2:
            return self._login.from_bearer(token, address)
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(VERIFYING)
        return await anyio.to_thread.run_sync(self._login.from_bearer, token, address, limiter=self._limiter)


def bearer_token(headers: Mapping[str, str]) -> str:
    """Return the token in the `Authorization` header; empty when there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def cookie_name(scope: Scope, name: str = COOKIE) -> str:
    """Return the name of a cookie with the prefix that makes browsers protect it.

    A page of another name of the same domain, or one without HTTPS, can set no cookie with `__Host-`. Browsers accept
    that only for a whole host, so it is `__Secure-` where the server has a path prefix, and nothing without HTTPS.

    Args:
        scope: The request.
        name: The name without a prefix.
    """
    if scope.get("scheme") != "https":
        return name
    return f"__Host-{name}" if cookie_path(scope) == "/" else f"__Secure-{name}"


def cookie_path(scope: Scope) -> str:
    """Return the path below which browsers send the cookies of this server."""
    return base_of(scope) or "/"


def cookie_value(headers: Mapping[str, str], name: str) -> str:
    """Return the value of a cookie as it was sent; empty when there is none.

    The server's cookies are base64, so nothing has to be unquoted. Python's `http.cookies`, and with it Starlette's
    `request.cookies`, may take half a minute to unquote one long value, before it is known who sent it.

    Args:
        headers: Headers of the request.
        name: Name of the cookie; of several with this name, the first counts, which browsers send for the longest path.
    """
    for pair in headers.get("cookie", "").split(";"):
        found, equals, value = pair.partition("=")
        if equals and found.strip() == name:
            return value.strip()
    return ""


def client_address(scope: Scope) -> str:
    """Return the address that the request came from."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _answer(error: HTTPException, scope: Scope) -> Response:
    headers = Headers(scope=scope)
    if error.status_code == 401 and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
        query = scope.get("query_string", b"").decode("latin-1")
        wanted = quote(scope["path"], safe="/") + (f"?{query}" if query else "")
        base = base_of(scope)
        next_page = f"?next={quote(wanted, safe='')}" if wanted.startswith(f"{base}/") else ""
        return RedirectResponse(f"{base}{LOGIN_PAGE}{next_page}", 303)
    return JSONResponse(body(error.detail), error.status_code, error.headers)


def _article(role: Role) -> str:
    return "an annotator" if role == Role.ANNOTATOR else "without a role"
