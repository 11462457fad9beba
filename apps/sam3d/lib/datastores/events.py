"""What happens in a studies folder while the server runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from watchdog.events import FileSystemEvent, PatternMatchingEventHandler


class FolderEvents(PatternMatchingEventHandler):
    """Reports files that come, go, or get another name, as rsync does with every file it has written.

    Args:
        patterns: Which files, as glob patterns of whole paths.
        changed: Called with each event.
    """

    def __init__(self, patterns: Sequence[str], changed: Callable[[FileSystemEvent], object]) -> None:
        super().__init__(patterns=list(patterns))
        self._changed = changed

    def on_created(self, event: FileSystemEvent) -> None:
        """Report a file that came."""
        self._changed(event)

    def on_deleted(self, event: FileSystemEvent) -> None:
        """Report a file that went."""
        self._changed(event)

    def on_moved(self, event: FileSystemEvent) -> None:
        """Report a file that has a new name."""
        self._changed(event)
