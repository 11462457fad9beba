"""What several routes need: bounded forms, and the name of the sender."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from lib.server.limits import Limits

MAX_FILES, MAX_FIELDS = 2, 16
"""Parts of a form: each one is held in memory up to a MiB before it goes to a file."""


def form_route(limits: Limits) -> type[APIRoute]:
    """The class of routes whose form has few parts; Starlette alone would accept a thousand files.

    Args:
        limits: How large a part other than a file may be.
    """

    class FormRoute(APIRoute):
        """Parses a form before FastAPI would, within limits."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def bounded(request: Request) -> Response:
                if "form" in request.headers.get("content-type", "").lower():
                    await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=limits.max_json_bytes)
                return await handle(request)

            return bounded

    return FormRoute


def sender(request: Request, client_id: str | None = None) -> str | None:
    """Who sent a request: the user who is logged in, else what the client calls itself."""
    identity = getattr(request.state, "identity", None)
    if identity is not None and not identity.anonymous:
        return str(identity.name)
    return client_id
