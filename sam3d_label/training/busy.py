"""Priority of clicks: a process that answers one sets a flag, and a training on the same machine waits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIGN = "answering"
LINGER = 1.0
"""Seconds after a click in which the next one is likely, so that a training waits for it."""

LONGEST = 60.0
"""Seconds after which a flag that was not renewed is ignored: its server was killed."""

POLL_SECONDS = 0.05


class BusySign:
    """A flag file whose modification time is the time until which the device is needed.

    Args:
        folder: Folder of the flag; created when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SIGN

    @contextmanager
    def show(self) -> Iterator[None]:
        """Show it while a request is answered, and a little longer."""
        self._until(LONGEST)
        try:
            yield
        finally:
            self._until(LINGER)

    def wait(self) -> None:
        """Return when it is not shown."""
        while self.seconds_left() > 0:
            time.sleep(POLL_SECONDS)

    def _until(self, seconds: float) -> None:
        end = time.time() + seconds
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
            os.utime(self._path, (end, end))
        except OSError:
            return  # a training that does not wait is better than a click without an answer

    def seconds_left(self) -> float:
        """Return for how long it is shown if nobody renews it; 0 where it is not shown."""
        try:
            left = self._path.stat().st_mtime - time.time()
        except OSError:
            return 0.0
        return left if left <= LONGEST else 0.0
