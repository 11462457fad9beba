"""Numbered versions of an adapter in one folder, and a pointer to the one that serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sam3d_label.errors import Sam3dError, StorageError, WeightsError
from sam3d_label.io import (
    locked,
    read_record,
    replacing,
    require_format,
    storing,
    sync_folder,
    sync_tree,
    with_format,
    write_json,
)
from sam3d_label.model_update.report import UpdateReport
from sam3d_label.weights.places import ADAPTER, CARD

CURRENT, HISTORY, REPORT = "current", "history.json", "report.json"
HISTORY_FORMAT = 1
NUMBER = re.compile(r"\d{4,}")
BEFORE_ALL = "shipped"
"""Stands for what served before the first version was published."""


class Published(BaseModel):
    """A moment at which another version began to serve.

    Attributes:
        version: Its number, or `BEFORE_ALL`.
        at: UTC, ISO 8601.
        by: What or who did it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: str
    at: str
    by: str


class Versions:
    """A folder of versions, NNNN/ with adapter, card and report, of a link `current` to one of them, and of a history.

    A version appears whole, by one rename, and so does the pointer: any process that reads finds complete
    versions only, also when a writer is killed. Writers take turns.

    Args:
        folder: Made when the first version is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def names(self) -> list[str]:
        """Every version, the oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((p.name for p in self.folder.iterdir() if NUMBER.fullmatch(p.name) and p.is_dir()), key=int)

    def current(self) -> str | None:
        """Return the active version; None before the first was published."""
        try:
            return Path(os.readlink(self.folder / CURRENT)).name
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WeightsError(f"{self.folder / CURRENT} is not the link that points to a version: {error}") from error

    def path(self, version: str) -> Path:
        """Return the folder of a version.

        Raises:
            WeightsError: There is no such version, or a file of it is missing.
        """
        if version not in self.names():
            others = f"only {', '.join(self.names())}" if self.names() else "no version was published yet"
            raise WeightsError(f"there is no version {version}: {others}")
        folder = self.folder / version
        missing = [name for name in (ADAPTER, CARD) if not (folder / name).is_file()]
        if missing:
            raise WeightsError(f"version {version} lacks {' and '.join(missing)}: copy it again or publish another")
        return folder

    @contextmanager
    def adding(self) -> Iterator[tuple[str, Path]]:
        """Yield the number of a new version and a folder to fill, which becomes that version when the block ends.

        Raises:
            WeightsError: The block left no adapter or no card.
        """
        with self._one_at_a_time():
            self._clean()
            names = self.names()
            version = f"{int(names[-1]) + 1 if names else 1:04d}"
            staged = self.folder / f".{uuid.uuid4().hex}"
            staged.mkdir()
            try:
                yield version, staged
                if not (staged / ADAPTER).is_file() or not (staged / CARD).is_file():
                    raise WeightsError(f"version {version} was left without {ADAPTER} or {CARD}")
                with storing(self.folder / version):
                    sync_tree(staged)
                    os.rename(staged, self.folder / version)
                    sync_folder(self.folder)
            finally:
                shutil.rmtree(staged, ignore_errors=True)

    def publish(self, version: str, by: str) -> None:
        """Let a version serve.

        Args:
            version: Its number, or `BEFORE_ALL` to serve what served before any.
            by: What or who decided it, for the history.

        Raises:
            WeightsError: There is no such version, or it is not complete.
        """
        if version != BEFORE_ALL:
            self.path(version)
        with self._one_at_a_time():
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            self._write_history([*self.history(), Published(version=version, at=now, by=by)])
            if version == BEFORE_ALL:
                (self.folder / CURRENT).unlink(missing_ok=True)
                sync_folder(self.folder)
                return
            with replacing(self.folder / CURRENT) as staged:
                staged.symlink_to(version)

    def rollback(self, version: str | None = None, by: str = "command line") -> str:
        """Let an earlier version serve again.

        Args:
            version: Which; without it, the one that served before the one that serves now.
            by: As for `publish`.

        Returns:
            The version that serves now.

        Raises:
            WeightsError: There is no such version, or none served before.
        """
        version = version or self.before()
        self.publish(version, by)
        return version

    def history(self) -> list[Published]:
        """Return the published versions, the earliest first, up to the active one.

        A writer that was killed between writing the history and moving the pointer leaves an entry that did not come
        true; it is left out.

        Raises:
            WeightsError: The file is damaged.
        """
        path = self.folder / HISTORY
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{path} is damaged, remove it to begin a new history: {error}") from error
        if isinstance(content, dict):  # older releases wrote the list alone
            require_format(content.get("format"), HISTORY_FORMAT, path)
            content = content.get("entries")
        try:
            entries = [Published.model_validate(entry) for entry in content]
        except (TypeError, ValidationError) as error:
            raise WeightsError(f"{path} is damaged, remove it to begin a new history: {error}") from error
        now = self.current() or BEFORE_ALL
        while entries and entries[-1].version != now:
            entries.pop()
        return entries

    def report(self, version: str) -> UpdateReport | None:
        """Return the report of the update that made a version; None when there is none.

        Raises:
            WeightsError: There is no such version, or its report is damaged or of a newer release.
        """
        path = self.path(version) / REPORT
        try:
            return read_record(UpdateReport, path)
        except Sam3dError as error:
            raise WeightsError(str(error)) from error

    def by_hand(self, version: str) -> Published | None:
        """Return the latest activation of a version that the gate rejected; None when there was none.

        Raises:
            WeightsError: There is no such version, or its report or the history is damaged.
        """
        report = self.report(version)
        if report is None or report.gate is None or report.gate.passes:
            return None
        return next((entry for entry in reversed(self.history()) if entry.version == version), None)

    def before(self) -> str:
        """Return the version, or `BEFORE_ALL`, that served before the one that serves now.

        Raises:
            WeightsError: No version serves.
        """
        now = self.current()
        if now is None:
            raise WeightsError("no version was published yet: there is nothing to roll back to")
        served = [entry.version for entry in self.history() if entry.version != now]
        return served[-1] if served else BEFORE_ALL

    def _write_history(self, entries: list[Published]) -> None:
        listed = [entry.model_dump() for entry in entries]
        write_json(self.folder / HISTORY, with_format(HISTORY_FORMAT, {"entries": listed}), indent=1)

    def _clean(self) -> None:
        """Remove what killed writers left."""
        for left in self.folder.glob(".*"):
            if left.name != ".lock":
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() and not left.is_symlink() else left.unlink()

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        try:
            with storing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                with locked(self.folder / ".lock"):
                    yield
        except StorageError:
            raise
        except OSError as error:
            raise WeightsError(f"{self.folder} cannot be written: {error}") from error
