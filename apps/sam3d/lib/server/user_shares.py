"""A limit on work that is done at a time, of which no user may take everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

Answer = TypeVar("Answer")


class BusyError(Exception):
    """A user waits for as many places as one may."""


@dataclass
class _UserShare:
    """The places of one user, and how many requests have or want one."""

    places: CapacityLimiter
    requests: int = 0


class UserShares:
    """Places for work, and the part of them that one user may have.

    A request without a place waits, first for one of its user's places and then for one of all: requests of one user
    therefore never stand before those of another in large numbers.

    Args:
        places: How many there are.
        most: How many of them one user may have; without it, all.
        most_waiting: How many requests of a user may wait; without it, any number.
    """

    @classmethod
    def halves(cls, places: int) -> UserShares:
        """Places of which one user may have half."""
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
            BusyError: As many requests of the user wait as may.
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
            BusyError: As many requests of the user wait as may.
        """
        async with self.place(user):
            return await to_thread.run_sync(work, limiter=self._threads)
