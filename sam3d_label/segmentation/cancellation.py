"""Stop a computation between two steps when its result is no longer needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class WorkCancelledError(Exception):
    """The work was stopped because its result is not needed."""


_is_cancelled: ContextVar[Callable[[], bool] | None] = ContextVar("is_cancelled", default=None)


@contextmanager
def cancellable(is_cancelled: Callable[[], bool]) -> Iterator[None]:
    """Stop the work in the block at its next checkpoint once a function returns True.

    Args:
        is_cancelled: Called in the thread of the work, at every checkpoint.
    """
    token = _is_cancelled.set(is_cancelled)
    try:
        yield
    finally:
        _is_cancelled.reset(token)


def checkpoint() -> None:
    """Continue if the result is still needed.

    Raises:
        WorkCancelledError: It is not.
    """
    is_cancelled = _is_cancelled.get()
    if is_cancelled is not None and is_cancelled():
        raise WorkCancelledError("the result is not needed any more")
