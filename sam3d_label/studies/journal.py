"""Change several files of one folder together or not at all, even if the process is killed at any moment."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from sam3d_label.errors import NewerFormatError, ReadOnlyError, Sam3dError, StorageError
from sam3d_label.io import Record, discard, read_record, storing, sync_folder, write_text

logger = logging.getLogger(__name__)
FILE = ".sam3d/journal.json"
SECOND = 10**9


def _inside(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{path} is outside the folder")
    return path


Inside = Annotated[str, AfterValidator(_inside)]


class _Rename(BaseModel):
    """A part file that is to replace its target; size and time (ns) show whether it has done so already."""

    model_config = ConfigDict(extra="forbid")
    part: Inside
    target: Inside
    bytes: int
    modified: int

    def is_done(self, folder: Path) -> bool:
        try:
            found = (folder / self.target).stat()
        except FileNotFoundError:
            return False
        times = (self.modified, self.modified // SECOND * SECOND)  # some backups keep whole seconds only
        return found.st_size == self.bytes and found.st_mtime_ns in times


class _Entry(Record):
    """The pending changes; all paths are relative to the folder."""

    model_config = ConfigDict(extra="forbid")
    replace: tuple[_Rename, ...] = ()
    remove: tuple[Inside, ...] = ()


class Journal:
    """Renames new files into place and removes old ones as one change.

    The new content is on the disk, in part files next to their targets, before the journal is written. Its rename is
    the moment of the change: without the journal nothing has happened, with it the change is completed by the next
    reader or writer. So a full disk can only prevent a change before that moment, and leaves the old state.

    The caller holds the lock of the folder for every method.

    Args:
        folder: The folder, absolute.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)
        self.path = self._folder / FILE

    def commit(self, replace: Mapping[Path, Path], remove: Iterable[Path] = ()) -> None:
        """Make a change, which is on the disk when this returns.

        Args:
            replace: Target of each part file, whose content has been flushed to the disk.
            remove: Files to remove; those that do not exist are ignored.

        Raises:
            StorageError: The journal cannot be written, and nothing has changed.
        """
        removed = [path for path in remove if path.exists()]
        if len(replace) + len(removed) > 1:
            entry = _Entry(
                replace=tuple(self._rename(part, target) for part, target in replace.items()),
                remove=tuple(self._relative(path) for path in removed),
            )
            try:
                write_text(self.path, entry.model_dump_json() + "\n")
            except OSError:
                discard(self.path)  # its rename may have happened before its folder could not be flushed
                raise
            try:
                self._complete(entry)
            except StorageError as error:
                logger.error("The change is stored and will be completed by the next access: %s", error)
            return
        for part, target in replace.items():  # a single rename is atomic
            with storing(target):
                os.replace(part, target)
                sync_folder(target.parent)
        for path in removed:
            with storing(path):
                path.unlink(missing_ok=True)
                sync_folder(path.parent)

    def recover(self) -> bool:
        """Complete the change of a killed writer; return whether there was one.

        Raises:
            NewerFormatError: A newer release has left the journal.
            StorageError: The change cannot be completed now; it remains to be done.
        """
        try:
            entry = read_record(_Entry, self.path)
        except NewerFormatError:
            raise
        except Sam3dError as error:
            self._abandon(str(error))
            return False
        if entry is None:
            return False
        for rename in entry.replace:
            if not (self._folder / rename.part).exists() and not rename.is_done(self._folder):
                self._abandon(f"the new content of {rename.target} is gone")
                return False
        logger.warning("Completing a change that was interrupted: %s", [rename.target for rename in entry.replace])
        try:
            self._complete(entry)
        except ReadOnlyError as error:
            logger.error("An interrupted change cannot be completed: %s", error)
        return True

    def _complete(self, entry: _Entry) -> None:
        folders = {self.path.parent}
        for rename in entry.replace:
            part, target = self._folder / rename.part, self._folder / rename.target
            folders.add(target.parent)
            with storing(target):
                if part.exists():  # else it was renamed before the writer was killed
                    os.replace(part, target)
        for name in entry.remove:
            path = self._folder / name
            folders.add(path.parent)
            with storing(path):
                path.unlink(missing_ok=True)
        with storing(self.path):
            for folder in folders - {self.path.parent}:
                sync_folder(folder)
            self.path.unlink(missing_ok=True)
            sync_folder(self.path.parent)

    def _abandon(self, reason: str) -> None:
        kept = self.path.with_name("journal.damaged.json")
        logger.error("%s cannot be used and is kept as %s: %s", self.path.name, kept.name, reason)
        with storing(self.path):
            os.replace(self.path, kept)

    def _rename(self, part: Path, target: Path) -> _Rename:
        stat = part.stat()
        return _Rename(
            part=self._relative(part),
            target=self._relative(target),
            bytes=stat.st_size,
            modified=stat.st_mtime_ns,
        )

    def _relative(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._folder)).as_posix()
