"""Priorities on one machine: clicks first, then a training, then the scoring of images."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sam3d_label.io import locked

SIGN, TRAINING = "answering", ".training.lock"
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
        self._lock, self._answering = threading.Lock(), 0

    @contextmanager
    def show(self) -> Iterator[None]:
        """Show it while a request is answered, and a little longer."""
        self._count(+1)
        try:
            yield
        finally:
            self._count(-1)

    def show_briefly(self) -> None:
        """Show it for a moment in which a click is likely."""
        self._count(0)

    def _count(self, change: int) -> None:
        """Record the begin (+1) or the end (-1) of an answer; the flag stays while this process gives others."""
        with self._lock:
            self._answering += change
            self._until(LONGEST if self._answering else LINGER)

    def wait(self) -> None:
        """Return when it is not shown."""
        while self.seconds_left() > 0:
            time.sleep(POLL_SECONDS)

    def seconds_since(self) -> float:
        """Return for how long it has not been shown: 0 while it is shown, infinite if it never was."""
        try:
            since = time.time() - self._path.stat().st_mtime
        except OSError:
            return math.inf
        return max(0.0, since) if since >= -LONGEST else math.inf

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
        return left if 0 < left <= LONGEST else 0.0


class TrainingSign:
    """A lock that a training holds for its whole duration; the system frees it when the process ends.

    Args:
        folder: Folder of the lock file.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TRAINING

    @contextmanager
    def show(self) -> Iterator[None]:
        """Hold it during a training."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._path):
            yield

    def is_shown(self) -> bool:
        """Return whether a training runs, in this process or another."""
        if not self._path.exists():
            return False
        try:
            with FileLock(self._path, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False  # without a usable lock file, nothing is known about trainings
