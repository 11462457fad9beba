"""Headers of trusted proxies: the client's address, the scheme and a path prefix."""

from __future__ import annotations

import re
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

HEADER = b"x-forwarded-prefix"
PREFIX = re.compile(r"(?:/[A-Za-z0-9~_-][A-Za-z0-9._~-]*){1,8}")
"""Path prefixes that may be in links and cookies: none leads to another server."""


class ProxyHeaders(ProxyHeadersMiddleware):
    """Takes over `X-Forwarded-For`, `-Proto` and `-Prefix` of requests from trusted proxies only.

    The proxy removes the prefix from the path, as nginx does with `proxy_pass http://server/;`.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # uvicorn's types of ASGI are private
        """Handle one request."""
        client = scope.get("client")
        if scope["type"] != "lifespan" and (client[0] if client else None) in self.trusted_hosts:
            prefix = forwarded_prefix(scope["headers"])
            if prefix:
                scope["root_path"] = prefix + scope.get("root_path", "")
                scope["path"] = prefix + scope["path"]
                if scope.get("raw_path"):
                    scope["raw_path"] = prefix.encode() + scope["raw_path"]
        await super().__call__(scope, receive, send)


def forwarded_prefix(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the path prefix in a request's headers; empty when there is none, or more than one, or no valid one."""
    found = [value.decode("latin-1").strip().rstrip("/") for name, value in headers if name == HEADER]
    return found[0] if len(found) == 1 and PREFIX.fullmatch(found[0]) else ""
