"""Security headers on every answer."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

from cachetools import LRUCache
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.server.paths import path_of, root_of

COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "SAMEORIGIN",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Permitted-Cross-Domain-Policies": "none",
}
DATA = "default-src 'none'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
PAGES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
OHIF = (
    "default-src 'self'; script-src 'self' 'unsafe-eval' {scripts}; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""OHIF compiles WebAssembly and templates at run time, starts workers from blobs, and sets style attributes."""

INLINE = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)


class SecurityHeaders:
    """Adds the headers to every answer, also to those of errors.

    Args:
        app: The next layer.
        ohif_page: Gives OHIF's start page for a path prefix; its policy allows the page's inline scripts.
        prefix: Path prefix of MONAI Label's routes.
    """

    def __init__(self, app: ASGIApp, ohif_page: Callable[[str], str] = lambda base: "", prefix: str = "") -> None:
        self.app = app
        self._ohif_page = ohif_page
        self._ohif = LRUCache[str, str](maxsize=16)
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = path_of(scope, self._prefix)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in COMMON.items():
                    headers[name] = value
                headers["Content-Security-Policy"] = self._policy(path, root_of(scope) + self._prefix)
                if scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = "max-age=31536000"
                if not path.startswith("/ohif/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _policy(self, path: str, base: str) -> str:
        if path.startswith("/ohif/"):
            if base not in self._ohif:
                scripts = " ".join(inline_scripts(self._ohif_page(base)))
                self._ohif[base] = OHIF.format(scripts=scripts).replace(" ;", ";")
            return self._ohif[base]
        return PAGES if path.startswith("/sam3d") or path in ("/", "/docs") else DATA


def inline_scripts(page: str) -> list[str]:
    """Return the policy's sources for the inline scripts of a page, given as HTML."""
    hashes = (hashlib.sha256(script.encode()).digest() for script in INLINE.findall(page))
    return [f"'sha256-{base64.b64encode(value).decode()}'" for value in hashes]
