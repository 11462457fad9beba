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

Side = Literal["train", "validation"]
FILE = "ledger.json"
FORMAT = 1
USUAL_SHARE = 0.2


class Entry(BaseModel):
    """One case of a ledger.

    Attributes:
        side: Where it belongs.
        group: What it shares its side with, such as its patient; its own id where that is not known.
        since: When it was assigned, UTC, ISO 8601.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    side: Side
    group: str = Field(min_length=1)
    since: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: int = FORMAT
    salt: str
    share: float = Field(ge=0, lt=1)
    cases: dict[str, Entry] = {}


class Ledger:
    """The sides of cases.

    A new case's side follows from a hash of the salt and its group: nobody chooses it, and cases of one patient share
    it. Only the first group trains in any case, as nothing could be learned without it. Once written down, a side
    stays, whatever later becomes of the share.

    Args:
        path: The file; None to keep nothing.
        share: Share of new cases in the validation split; without it, that of the file, or 0.2.

    Raises:
        Sam3dError: The file cannot be read. It is never begun anew in silence: cases would change sides.
    """

    def __init__(self, path: Path | None = None, share: float | None = None) -> None:
        self.path, self._share = path, share
        self._file = _File(salt=secrets.token_hex(16) if path else "", share=USUAL_SHARE)
        self._refresh()

    def __contains__(self, case: str) -> bool:
        return case in self._file.cases

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All cases with a split, by id."""
        return self._file.cases

    @property
    def digest(self) -> str:
        """SHA-256 of the salt and the sides, in hex: what a version was trained and measured under."""
        sides = sorted((case, entry.side) for case, entry in self._file.cases.items())
        return hashlib.sha256(repr((self._file.salt, sides)).encode()).hexdigest()

    def tell(self, cases: Mapping[str, str]) -> dict[str, Side]:
        """Return the split of each case; new cases are assigned and stored first.

        Args:
            cases: Group of each case by its id.

        Raises:
            Sam3dError: The file cannot be written.
        """
        with self._alone():
            self._refresh()
            new = {case: group for case, group in cases.items() if case not in self._file.cases}
            for case, group in sorted(new.items()):
                now = datetime.now(timezone.utc).isoformat(timespec="seconds")
                self._file.cases[case] = Entry(side=self._side(group), group=group, since=now)
            if new and self.path:
                write_text(self.path, self._file.model_dump_json(indent=1) + "\n")
        return {case: self._file.cases[case].side for case in cases}

    def _side(self, group: str) -> Side:
        known = [entry.side for entry in self._file.cases.values() if entry.group == group]
        if known or not self._file.cases:
            return known[0] if known else "train"
        return "validation" if hash_position(self._file.salt + group) < self._file.share else "train"

    def _refresh(self) -> None:
        """Take over what the file holds by now."""
        if self.path and self.path.exists():
            self._file = _read(self.path)
        if self._share is not None:
            self._file.share = self._share

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Other processes that know the file wait."""
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


def counts(sides: Iterable[Side]) -> dict[Side, int]:
    """How many cases lie on each side."""
    sides = list(sides)
    return {"train": sides.count("train"), "validation": sides.count("validation")}


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
