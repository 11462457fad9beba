"""Numbered versions of an adapter in one folder, and a pointer to the active one."""

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

from pydantic import ValidationError

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
from sam3d_label.model_update.report import Activation, UpdateReport
from sam3d_label.weights.locations import ADAPTER, CARD

CURRENT, HISTORY, REPORT = "current", "history.json", "report.json"
HISTORY_FORMAT = 1
NUMBER = re.compile(r"\d{4,}")
INITIAL = "shipped"
"""Name of the weights that were active before the first version was published."""


class Versions:
    """A folder with versions (NNNN/ with adapter, card and report), a link `current` to the active one, and a history.

    A version and the link each appear by one rename, so that readers find complete versions only, even if a writer is
    killed. Writers exclude each other by a lock.

    Args:
        folder: Created when the first version is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def names(self) -> list[str]:
        """Return the numbers of all versions, the oldest first."""
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
    def new_version(self) -> Iterator[tuple[str, Path]]:
        """Yield the number of a new version and a folder to fill, which becomes that version when the block ends.

        Raises:
            WeightsError: The block left no adapter or no card.
        """
        with self._write_lock():
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

    def publish(self, version: str, by: str, *, after: Activation | None = None) -> Activation:
        """Activate a version.

        Args:
            version: Its number, or `INITIAL` for the weights before the first version.
            by: Who or what activated it, for the history.
            after: What must still be the latest activation, or nothing is changed; None for any.

        Returns:
            The latest activation: this one, or the one that came after `after`.

        Raises:
            WeightsError: There is no such version, or it is not complete.
        """
        if version != INITIAL:
            self.path(version)
        with self._write_lock():
            latest = self.latest_activation()
            if after is not None and latest != after:
                return latest
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            activation = Activation(version=version, at=now, by=by)
            self._write_history([*self.history(), activation])
            if version == INITIAL:
                (self.folder / CURRENT).unlink(missing_ok=True)
                sync_folder(self.folder)
            else:
                with replacing(self.folder / CURRENT) as staged:
                    staged.symlink_to(version)
            return activation

    def latest_activation(self) -> Activation:
        """Return the activation of the active version; without a record of it, one of an unknown time."""
        recorded = self.history()
        return recorded[-1] if recorded else Activation(version=self.current() or INITIAL)

    def rollback(self, version: str | None = None, by: str = "command line") -> str:
        """Activate an earlier version again.

        Args:
            version: Its number; None for the version that was active before the current one.
            by: As for `publish`.

        Returns:
            The version that is active now.

        Raises:
            WeightsError: There is no such version, or none was active before.
        """
        version = version or self.previous()
        self.publish(version, by)
        return version

    def history(self) -> list[Activation]:
        """Return the published versions, the earliest first, up to the active one.

        An entry of a writer that was killed before it moved the pointer is left out.

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
            entries = [Activation.model_validate(entry) for entry in content]
        except (TypeError, ValidationError) as error:
            raise WeightsError(f"{path} is damaged, remove it to begin a new history: {error}") from error
        now = self.current() or INITIAL
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

    def manual_activation(self, version: str) -> Activation | None:
        """Return the latest activation of a version that the gate rejected; None when there was none.

        Raises:
            WeightsError: There is no such version, or its report or the history is damaged.
        """
        report = self.report(version)
        if report is None or report.gate is None or report.gate.passes:
            return None
        return next((entry for entry in reversed(self.history()) if entry.version == version), None)

    def previous(self) -> str:
        """Return the version, or `INITIAL`, that was active before the current one.

        Raises:
            WeightsError: No version is active.
        """
        now = self.current()
        if now is None:
            raise WeightsError("no version was published yet: there is nothing to roll back to")
        served = [entry.version for entry in self.history() if entry.version != now]
        return served[-1] if served else INITIAL

    def _write_history(self, entries: list[Activation]) -> None:
        listed = [entry.model_dump() for entry in entries]
        write_json(self.folder / HISTORY, with_format(HISTORY_FORMAT, {"entries": listed}), indent=1)

    def _clean(self) -> None:
        """Remove unfinished files of killed writers."""
        for left in self.folder.glob(".*"):
            if left.name != ".lock":
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() and not left.is_symlink() else left.unlink()

    @contextmanager
    def _write_lock(self) -> Iterator[None]:
        try:
            with storing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                with locked(self.folder / ".lock"):
                    yield
        except StorageError:
            raise
        except OSError as error:
            raise WeightsError(f"{self.folder} cannot be written: {error}") from error
