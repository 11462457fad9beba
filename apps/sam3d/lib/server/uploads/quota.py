"""Limits of the number and size of sessions, so that no client fills the disk or blocks others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import HTTPException

from lib.configs.limits import RequestLimits
from sam3d_label.image.limits import MIB

WAY_OUT = "remove one with DELETE /session/ID, or wait until one expires"


@dataclass
class SessionUsage:
    """The size of a session.

    Attributes:
        owner: Who made it; None where there is no login.
        size: Bytes on the disk.
    """

    owner: str | None
    size: int = 0


class SessionQuota:
    """Limits for all sessions, of which one user may use half.

    Args:
        limits: How many sessions there may be, and their bytes.
        on_disk: Lists the sessions by name, expired ones left out.
    """

    def __init__(self, limits: RequestLimits, on_disk: Callable[[], Mapping[str, SessionUsage]]) -> None:
        self._limits, self._on_disk = limits, on_disk
        self._guard = threading.Lock()
        self._kept: dict[str, SessionUsage] = {}
        self._making: dict[str, SessionUsage] = {}

    @contextmanager
    def place(self, name: str, owner: str | None) -> Iterator[Callable[[int], None]]:
        """Reserve a place for a session while it is made.

        Args:
            name: Of the session.
            owner: Who makes it.

        Yields:
            A function to call with the number of bytes that are about to be written.

        Raises:
            HTTPException: 429; there are too many sessions. The function raises 507 when their files get too large.
        """
        held = SessionUsage(owner)
        with self._guard:
            self._kept = dict(self._on_disk())
            self._require_few(owner)
            self._making[name] = held

        def grow(size: int) -> None:
            with self._guard:
                self._require_room(owner, size)
                held.size += size

        try:
            yield grow
            with self._guard:
                self._kept[name] = held
        finally:
            with self._guard:
                del self._making[name]

    def _require_few(self, owner: str | None) -> None:
        most = self._limits.max_sessions
        everyone = [held.owner for held in self._all()]
        if len(everyone) >= most:
            raise HTTPException(429, f"There are {most} sessions already (--conf max_sessions): {WAY_OUT}")
        if owner is not None and everyone.count(owner) >= max(1, most // 2):
            raise HTTPException(
                429, f"You have {max(1, most // 2)} sessions already, half of --conf max_sessions: {WAY_OUT}"
            )

    def _require_room(self, owner: str | None, size: int) -> None:
        most = self._limits.max_sessions_mb * MIB
        if sum(held.size for held in self._all()) + size > most:
            whose = "all sessions"
        elif owner is not None and sum(held.size for held in self._all() if held.owner == owner) + size > most // 2:
            whose, most = "your sessions", most // 2
        else:
            return
        raise HTTPException(
            507,
            f"The images of {whose} would take more than {most / MIB:.4g} MiB (--conf max_sessions_mb): {WAY_OUT}",
        )

    def _all(self) -> list[SessionUsage]:
        return list({**self._kept, **self._making}.values())
