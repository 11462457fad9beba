"""Requests to all trainers or all scoring methods at once: shared keys, and keys for one of them under its name."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from pydantic import create_model

from lib.validation import ClientRequest

R = TypeVar("R", bound=ClientRequest)


def body_to_all(title: str, request: type[ClientRequest], names: Sequence[str]) -> type[ClientRequest]:
    """Return the model of a request to all.

    Args:
        title: Name of the model in OpenAPI.
        request: Model of a request to one of them.
        names: Names of all.
    """
    return create_model(
        title,
        __base__=request,
        __doc__="Keys for all of them, and keys for one of them under its name.",
        **dict.fromkeys(names, (request | None, None)),  # type: ignore[call-overload]  # fields by name
    )


def request_to_each(body: ClientRequest | None, request: type[R], names: Sequence[str]) -> Iterator[tuple[str, R]]:
    """Yield each name with its own request, from a body that `body_to_all` validated."""
    given = body.given() if body else {}
    shared = {key: value for key, value in given.items() if key not in names}
    for name in names:
        own = given.get(name)
        yield name, request.model_validate({**shared, **(own if isinstance(own, dict) else {})})
