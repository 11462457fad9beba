"""A limit on work that is done at a time, of which no user may take everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

Answer = TypeVar("Answer")


class BusyError(Exception):
    """As many requests of a user wait as are allowed."""


@dataclass
class _UserShare:
    """The places of one user, and the number of requests that have or wait for one."""

    places: CapacityLimiter
    requests: int = 0


class UserShares:
    """A limit of concurrent requests, and the share of it for one user.

    A request without a place waits, first for one of its user's places and then for one of all, so that many requests
    of one user do not block those of another.

    Args:
        places: Number of concurrent requests.
        most: Largest number of them for one user; None for all.
        most_waiting: Largest number of waiting requests of a user; None for any number.
    """

    @classmethod
    def halves(cls, places: int) -> UserShares:
        """Return a limit of which one user may use half."""
        return cls(places, max(1, places // 2))

    def __init__(self, places: int, most: int | None = None, most_waiting: int | None = None) -> None:
        self._all = CapacityLimiter(places)
        self._threads = CapacityLimiter(places)
        self._most, self._most_waiting = most or places, most_waiting
        self._users: dict[Hashable, _UserShare] = {}

    @asynccontextmanager
    async def place(self, user: Hashable = None) -> AsyncIterator[None]:
        """Wait for a place and keep it during the block.

        Args:
            user: User who needs the place; None for users that are not distinguished, who may have all places.

        Raises:
            BusyError: As many requests of the user wait as are allowed.
        """
        if user is None:
            async with self._all:
                yield
            return
        own = self._users.setdefault(user, _UserShare(CapacityLimiter(self._most)))
        if self._most_waiting is not None and own.requests >= self._most + self._most_waiting:
            raise BusyError
        own.requests += 1
        try:
            async with own.places, self._all:
                yield
        finally:
            own.requests -= 1
            if not own.requests:
                del self._users[user]

    async def run(self, user: Hashable, work: Callable[[], Answer]) -> Answer:
        """Run blocking work in a thread of these places, which are none of those that other routes use.

        Args:
            user: Who asks for it.
            work: Computes the answer.

        Raises:
            BusyError: As many requests of the user wait as are allowed.
        """
        async with self.place(user):
            return await to_thread.run_sync(work, limiter=self._threads)
