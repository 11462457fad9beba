"""The folder of a replay: the log, the settings and the results so far."""

from __future__ import annotations

import csv
import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock
from pydantic import AliasChoices, Field, ValidationError

from sam3d_label.errors import Sam3dError
from sam3d_label.io import Record, append_line, read_record, replacing, write_record, write_text
from sam3d_label.replay.files import LOG, ROWS, SETTINGS, SUMMARY, TABLE
from sam3d_label.replay.request import ReplayRow
from sam3d_label.replay.summary import Conditions, ReplaySummary, WeightsIdentity, summarise
from sam3d_label.studies.click_log import LoggedRequest, read_log

COLUMNS = tuple(name for name in ReplayRow.model_fields if name != "format")
ROW_FILE = re.compile(r"[0-9a-f]{32}\.jsonl")
"""Names of the files of rows."""

FIX = "give another folder, or add --overwrite to replace it"
MOVE = "give another folder, or move it away"


STORED_NAME = "comparison with what served"
"""Name of a setting in the file and in messages."""


class ReplaySettings(Record):
    """The values that must not change when a replay continues.

    Attributes:
        weights: The weights that answer the requests.
        tag: Tag of the labels that the masks are compared with.
        labels: Names of what the app segmented, for labels that were saved without names.
        compares_with_served: Whether masks are compared with those of the original versions.
    """

    weights: WeightsIdentity
    tag: str
    labels: tuple[str, ...]
    compares_with_served: bool = Field(
        validation_alias=AliasChoices("compares_with_served", STORED_NAME), serialization_alias=STORED_NAME
    )


class ReplayFolder:
    """A folder that processes of one replay share, on one machine or several.

    Each process adds rows to its own files, so that none waits for another and a killed one loses at most its current
    row. Existing rows are not computed again.

    Args:
        folder: Made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def begin(
        self, source: Path, settings: ReplaySettings, *, overwrite: bool = False
    ) -> tuple[list[LoggedRequest], int]:
        """Copy the log, or read the copy of a replay that continues.

        Args:
            source: As of `read_log`.
            settings: Values that must not change when the replay continues.
            overwrite: Whether to replace the replay in the folder; other files are kept.

        Returns:
            The requests to replay, and how many the log has got since.

        Raises:
            Sam3dError: There is no log, or the folder holds another replay, or files of something else.
            OSError: The folder cannot be written.
        """
        now = read_log(source).requests
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            if overwrite and (self.folder / SETTINGS).is_file():
                self._clear()
            if not (self.folder / SETTINGS).is_file():
                text = "".join(f"{each.model_dump_json()}\n" for each in now)
                self._require_new(text)
                write_text(self.folder / LOG, text)
                write_record(self.folder / SETTINGS, settings)
        self._require_same(settings)
        began = read_log(self.folder / LOG).requests
        newer = len(now) - len(began)
        if not {each.model_dump_json() for each in began} <= {each.model_dump_json() for each in now}:
            raise Sam3dError(f"{self.folder} holds the replay of another log: {FIX}")
        return began, newer

    @contextmanager
    def open_rows(self) -> Iterator[Callable[[ReplayRow], None]]:
        """Yield a function that adds rows; each row is on disk when it returns."""
        folder = self.folder / ROWS
        folder.mkdir(exist_ok=True)
        with (folder / f"{uuid.uuid4().hex}.jsonl").open("ab+", buffering=0) as file:

            def add(row: ReplayRow) -> None:
                append_line(file, row.model_dump_json().encode() + b"\n")

            yield add

    def rows(self) -> dict[int, ReplayRow]:
        """Return the rows so far, by number; incomplete lines of a killed process are left out."""
        found: dict[int, ReplayRow] = {}
        for file in self._row_files():
            for line in file.read_bytes().splitlines():
                try:
                    row = ReplayRow.model_validate_json(line)
                except ValidationError:
                    continue
                found.setdefault(row.number, row)
        return dict(sorted(found.items()))

    def merge(self, requests: int, conditions: Conditions) -> ReplaySummary:
        """Write table and summary of all results so far; the process that ends last writes the complete ones.

        Args:
            requests: How many there are in all.
            conditions: How the replay is made.

        Returns:
            The summary.
        """
        with FileLock(self.folder / ".lock"):
            rows = list(self.rows().values())
            summary = summarise(rows, requests, conditions)
            with replacing(self.folder / TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(COLUMNS)
                table.writerows(map(_cells, rows))
            write_record(self.folder / SUMMARY, summary)
        return summary

    def _require_new(self, text: str) -> None:
        """Raise `Sam3dError` if the folder holds files of something else under the names of a replay's files.

        Args:
            text: The log, which a replay that was killed at once may have left.
        """
        there = [name for name in (SUMMARY, TABLE, LOG, ROWS) if os.path.lexists(self.folder / name)]
        if LOG in there and (self.folder / LOG).is_file() and (self.folder / LOG).read_bytes() == text.encode():
            there.remove(LOG)
        if there:
            raise Sam3dError(f"{self.folder} holds {', '.join(there)}, which no replay has written: {MOVE}")

    def _row_files(self) -> list[Path]:
        folder = self.folder / ROWS
        return sorted(path for path in folder.iterdir() if ROW_FILE.fullmatch(path.name)) if folder.is_dir() else []

    def _clear(self) -> None:
        """Remove everything that the replay in the folder wrote; its settings last, so that a killed call is repeated.

        Raises:
            Sam3dError: The folder of the rows holds other files; nothing is removed.
        """
        rows, folder = self._row_files(), self.folder / ROWS
        others = sorted(path.name for path in {*folder.iterdir()} - {*rows}) if folder.is_dir() else []
        if others:
            raise Sam3dError(f"{folder} holds {', '.join(others[:3])}, which no replay has written: {MOVE}")
        for path in (*rows, *(self.folder / name for name in (SUMMARY, TABLE, LOG))):
            path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            folder.rmdir()
        (self.folder / SETTINGS).unlink()

    def _require_same(self, settings: ReplaySettings) -> None:
        before = read_record(ReplaySettings, self.folder / SETTINGS)
        known = before.model_dump(by_alias=True) if before else {}
        changed = sorted(key for key, value in settings.model_dump(by_alias=True).items() if known.get(key) != value)
        if changed:
            raise Sam3dError(f"{self.folder} holds a replay with another {', '.join(changed)}: {FIX}")


def _cells(row: ReplayRow) -> Sequence[object]:
    return [_cell(getattr(row, name)) for name in COLUMNS]


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    return round(value, 6) if isinstance(value, float) else value
