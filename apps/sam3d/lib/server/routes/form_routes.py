"""Shared code of routes: bounded forms, and the name of the sender."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from python_multipart.multipart import parse_options_header
from starlette.formparsers import MultiPartException

from lib.server.forms import FormReader
from lib.server.user_shares import UserShares

Handler = Callable[[Request], Coroutine[object, object, Response]]
MAX_FILES, MAX_FIELDS = 2, 16
"""Parts of a form where a route does not need more."""


def form_route(max_part_bytes: int, max_files: int = MAX_FILES, readers: UserShares | None = None) -> type[APIRoute]:
    """Return a class of routes whose forms have few parts; Starlette itself accepts a thousand files.

    Args:
        max_part_bytes: How large a part other than a file may be.
        max_files: How many files there may be.
        readers: Limits how many volumes are read at a time, of all users and of one, for routes that take uploads
            (PUT). Requests that wait have arrived whole, so a slow client keeps nobody waiting.
    """

    class FormRoute(APIRoute):
        """Parse a form before FastAPI does, within limits."""

        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def bounded(request: Request) -> Response:
                await read_form(request, max_part_bytes, max_files)
                if readers is None or request.method != "PUT":
                    return await handle(request)
                async with readers.place(sender(request)):
                    return await handle(request)

            return bounded

    return FormRoute


def reading_route(readers: UserShares) -> type[APIRoute]:
    """Return the class of routes that read a volume to answer.

    Args:
        readers: Limits how many do so at a time, of all users and of one.
    """

    class ReadingRoute(APIRoute):
        """The task waits for its turn."""

        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def limited(request: Request) -> Response:
                async with readers.place(sender(request)):
                    return await handle(request)

            return limited

    return ReadingRoute


async def read_form(request: Request, max_part_bytes: int, max_files: int) -> None:
    """Parse the form of a request, if it is one, for the route that handles it.

    Args:
        request: The request.
        max_part_bytes: How large a part other than a file may be.
        max_files: How many files there may be.

    Raises:
        HTTPException: 400; it is no form, or it is above a limit.
        StorageError: The disk for temporary files is full.
    """
    kind, _ = parse_options_header(request.headers.get("content-type"))  # as Starlette does, so that both agree
    if kind == b"multipart/form-data":
        try:
            reader = FormReader(request.headers, request.stream(), max_files, MAX_FIELDS, max_part_bytes)
            request._form = await reader.parse()  # where `Request.form` keeps what it has parsed
        except MultiPartException as error:
            raise HTTPException(400, f"This form cannot be read: {error.message}") from None
    elif kind == b"application/x-www-form-urlencoded":
        await request.form(max_files=max_files, max_fields=MAX_FIELDS, max_part_size=max_part_bytes)


def sender(request: Request, client_id: str | None = None) -> str | None:
    """Return the sender of a request: the user who is logged in, otherwise the `client_id`."""
    identity = getattr(request.state, "identity", None)
    if identity is not None and not identity.anonymous:
        return str(identity.name)
    return client_id
