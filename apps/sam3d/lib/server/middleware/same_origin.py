"""Refuses requests for another host, and those that a page of another origin makes a browser send.

A server without a login trusts everybody on its machine. Browsers are on that machine, and any page that they show may
send requests to it. What such a page cannot do is to set `Host`, `Origin` and `Sec-Fetch-Site`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lib.errors import body

READING = ("GET", "HEAD")
ORIGIN = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", re.IGNORECASE)
"""An origin as browsers send it (RFC 6454): no user, path, query or fragment."""

DEFAULT_PORTS = {"http": 80, "https": 443}


class SameOrigin:
    """Answers 421 for an unknown host, 403 for a request from another origin.

    CORS headers are never sent, so a page of another origin cannot read an answer.

    Args:
        app: The next layer.
        hosts: Names and addresses of this server, without ports. Every port is accepted, since a tunnel may change it.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app = app
        self._hosts = {_plain(host) for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        answer = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        await (answer or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        named = headers.getlist("host")
        host = named[0] if len(named) == 1 else ""
        name = host_name(host)
        if name is None or not (_plain(name) in self._hosts or _is_loopback(name)):
            detail = "This server does not have that name; add it with --conf allowed_hosts if it does"
            return JSONResponse(body(detail), 421)
        method = scope.get("method", "GET")
        if not _from_here(headers, host, scope["scheme"], method):
            detail = "The request comes from a page of another origin; send it from a page of this server"
            return JSONResponse(body(detail), 403)
        return None


def _from_here(headers: Headers, host: str, scheme: str, method: str) -> bool:
    site = headers.get("sec-fetch-site", "none")
    if method in READING:  # a link may lead here; a picture or script of another page may not load
        return site in ("none", "same-origin", "same-site") or headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin"):
        return False
    return all(_same_origin(origin, host, scheme) for origin in headers.getlist("origin"))


def _same_origin(origin: str, host: str, scheme: str) -> bool:
    """Return whether an origin is that of the host.

    A proxy may use HTTPS where this server uses HTTP, but not the reverse.
    """
    if not ORIGIN.fullmatch(origin):
        return False
    try:
        parts = urlsplit(origin)
        own = urlsplit(f"{parts.scheme}://{host}")
        default = DEFAULT_PORTS.get(parts.scheme)
        same = (parts.hostname, parts.port or default) == (own.hostname, own.port or default)
    except ValueError:
        return False
    secure = scheme in ("https", "wss")
    return same and default is not None and parts.hostname is not None and (parts.scheme == "https" or not secure)


def host_name(host: str) -> str | None:
    """Return the name in a `Host` header without its port; None when it is not a valid header."""
    if not host or not host.isascii() or set(host) & set("/\\?#@, \t%"):
        return None
    bracket, _, after = host.partition("]")
    if bracket.startswith("[") and after and not after.startswith(":"):  # urlsplit ignores what follows an address
        return None
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname


def _plain(host: str) -> str:
    return host.strip().strip("[]").rstrip(".").lower()


def _is_loopback(name: str) -> bool:
    if name in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
