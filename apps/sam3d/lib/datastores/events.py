"""Watch changes of a studies folder while the server runs."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver

from sam3d_label.errors import Sam3dError
from sam3d_label.io import PART

logger = logging.getLogger(__name__)
CHANGES = (
    *(FileClosedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent),
    *(DirCreatedEvent, DirDeletedEvent, DirMovedEvent),
)
QUIET, LONGEST = 0.3, 2.0
"""Seconds without an event after which the folder is read, and after which it is read despite further events."""


class FolderEvents(FileSystemEventHandler):
    """Reports files that are added, removed, changed or renamed; rsync renames every file it has written.

    Args:
        is_of_interest: Whether a file matters, given its folder and name.
        changed: Called for each change.
    """

    def __init__(self, is_of_interest: Callable[[str, str], bool], changed: Callable[[], object]) -> None:
        self._is_of_interest, self._changed = is_of_interest, changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Report a change of a file, but not a read."""
        if not isinstance(event, CHANGES):
            return
        for path in (os.fsdecode(event.src_path), os.fsdecode(getattr(event, "dest_path", ""))):
            folder, name = os.path.split(path)
            if name and not name.startswith(PART) and (event.is_directory or self._is_of_interest(folder, name)):
                self._changed()
                return


class FolderWatch:
    """Reads a folder again soon after something in it has changed, once for changes that come together.

    Args:
        path: The folder.
        is_of_interest: Whether a file matters, given its folder and name.
        refresh: Reads the folder.
        polling: Whether to compare listings instead of waiting for the system, as network drives need it.
    """

    def __init__(
        self,
        path: str,
        is_of_interest: Callable[[str, str], bool],
        refresh: Callable[[], object],
        polling: bool,
    ) -> None:
        self._refresh = refresh
        self._changed, self._stopped = threading.Event(), threading.Event()
        events = FolderEvents(is_of_interest, self._changed.set)
        self._observer = self._started(events, path, polling)
        self._thread = threading.Thread(target=self._work, name="folder-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._changed.set()
        self._observer.stop()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout)
        self._observer.join(timeout)

    @staticmethod
    def _started(events: FolderEvents, path: str, polling: bool) -> BaseObserver:
        observer: BaseObserver = PollingObserver() if polling else Observer()
        try:
            observer.schedule(events, path, recursive=True)
            observer.start()
        except OSError as error:
            if polling:
                raise
            logger.warning("The system does not report changes in the studies folder (%s): it is polled", error)
            return FolderWatch._started(events, path, True)
        return observer

    def _work(self) -> None:
        while True:
            self._changed.wait()
            first = time.monotonic()
            while self._changed.is_set() and time.monotonic() - first < LONGEST:
                self._changed.clear()
                self._stopped.wait(QUIET)
            if self._stopped.is_set():
                return
            self._changed.clear()
            try:
                self._refresh()
            except (Sam3dError, OSError) as error:
                logger.error("A change in the studies folder could not be read: %s", error)
