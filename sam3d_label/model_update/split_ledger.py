"""The split of each case, training or validation: assigned once, permanently."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sam3d_label.errors import NewerFormatError, Sam3dError, StorageError
from sam3d_label.io import locked, require_format, storing, write_text
from sam3d_label.training.split import hash_position

Split = Literal["train", "validation"]
FILE = "ledger.json"
FORMAT = 1
DEFAULT_SHARE = 0.2


class LedgerEntry(BaseModel):
    """One case of a ledger.

    Attributes:
        split: Its split; `side` in the file.
        group: Cases of one group, such as a patient, share a split; the id of the case if it has no group.
        since: When it was assigned, UTC, ISO 8601.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    side: Split
    group: str = Field(min_length=1)
    since: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: int = FORMAT
    salt: str
    share: float = Field(ge=0, lt=1)
    cases: dict[str, LedgerEntry] = {}


class Ledger:
    """The split of every case.

    The split of a new case is a hash of the salt and its group, so that nobody chooses it and the cases of a patient
    share it. The first group always trains, since nothing could be learned without it. A stored split never changes,
    even if the share does.

    Args:
        path: The file; None to store nothing.
        share: Share of new cases in the validation split; without it, that of the file, or 0.2.

    Raises:
        Sam3dError: The file cannot be read. It is never replaced by a new one, since cases would change their split.
    """

    def __init__(self, path: Path | None = None, share: float | None = None) -> None:
        self.path, self._share = path, share
        self._file = _File(salt=secrets.token_hex(16) if path else "", share=DEFAULT_SHARE)
        self._refresh()

    def __contains__(self, case: str) -> bool:
        return case in self._file.cases

    @property
    def entries(self) -> Mapping[str, LedgerEntry]:
        """All cases with a split, by id."""
        return self._file.cases

    @property
    def digest(self) -> str:
        """SHA-256 of the salt and the splits, in hex; stored with each version that used them."""
        splits = sorted((case, entry.side) for case, entry in self._file.cases.items())
        return hashlib.sha256(repr((self._file.salt, splits)).encode()).hexdigest()

    def assign(self, cases: Mapping[str, str]) -> dict[str, Split]:
        """Return the split of each case; new cases are assigned and stored first.

        Args:
            cases: Group of each case by its id.

        Raises:
            Sam3dError: The file cannot be written.
        """
        with self._exclusive():
            self._refresh()
            new = {case: group for case, group in cases.items() if case not in self._file.cases}
            for case, group in sorted(new.items()):
                now = datetime.now(timezone.utc).isoformat(timespec="seconds")
                self._file.cases[case] = LedgerEntry(side=self._split(group), group=group, since=now)
            if new and self.path:
                write_text(self.path, self._file.model_dump_json(indent=1) + "\n")
        return {case: self._file.cases[case].side for case in cases}

    def _split(self, group: str) -> Split:
        known = [entry.side for entry in self._file.cases.values() if entry.group == group]
        if known or not self._file.cases:
            return known[0] if known else "train"
        return "validation" if hash_position(self._file.salt + group) < self._file.share else "train"

    def _refresh(self) -> None:
        """Read the current content of the file."""
        if self.path and self.path.exists():
            self._file = _read(self.path)
        if self._share is not None:
            self._file.share = self._share

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock of the file between processes."""
        if self.path is None:
            yield
            return
        try:
            with storing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path.with_name(f".{self.path.name}.lock")):
                yield
        except StorageError:
            raise
        except OSError as error:
            raise Sam3dError(f"the ledger {self.path} cannot be written: {error}") from error


def counts(splits: Iterable[Split]) -> dict[Split, int]:
    """Count the cases of each split."""
    splits = list(splits)
    return {"train": splits.count("train"), "validation": splits.count("validation")}


def _read(path: Path) -> _File:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        require_format(content.get("format") if isinstance(content, dict) else None, FORMAT, path)
        return _File.model_validate(content)
    except NewerFormatError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise Sam3dError(
            f"the ledger {path} cannot be read: restore it from a backup. Without it, cases that trained could"
            f" validate. {str(error).splitlines()[0]}"
        ) from error
