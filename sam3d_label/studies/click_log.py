"""Log of the requests to the models, which never delays a click."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict

from sam3d_label.errors import NewerFormatError, Sam3dError
from sam3d_label.io import Record, append_line, locked, sync_folder
from sam3d_label.segmentation.prompts import Box, ChosenCandidate, Click, Ijk, Prompts

logger = logging.getLogger(__name__)
FOLDER = "clicks"
"""Of the log, in the model folder of an app."""

FILE = re.compile(r"clicks-(\d{6,})\.jsonl")
FILE_BYTES = 10 * 2**20
FILES = 10
"""About 40 000 requests a file, 400 000 in all; the oldest file goes when there are more."""

SESSION = re.compile(r"session-[0-9a-f]{12}")
"""Name of the image of a session: a hash of the session's name."""

ResultKind = Literal["mask", "uncertainty", "candidates"]
"""Content of the file that a request asks for."""

LOCK_TIMEOUT = 1.0
"""Seconds that a request waits for other processes that write; then it goes unlogged."""


class LoggedChoice(BaseModel):
    """A candidate that an annotator has chosen.

    Attributes:
        prompts: The prompts that it is a candidate of.
        number: Its place among their candidates, from 0.
    """

    model_config = ConfigDict(frozen=True)
    prompts: LoggedPrompts
    number: int

    @classmethod
    def of(cls, chosen: ChosenCandidate) -> LoggedChoice:
        """Return a chosen candidate for the log."""
        return cls(prompts=LoggedPrompts.of(chosen.prompts), number=chosen.number)

    def choice(self, version: str | None) -> ChosenCandidate:
        """Return the logged candidate, of a version of the weights."""
        return ChosenCandidate(self.prompts.prompts(), self.number, version)


class LoggedPrompts(BaseModel):
    """Prompts as they are logged, in voxels of the stored image and in the order in which they came.

    Attributes:
        inside: Clicks inside the target.
        outside: Clicks outside.
        boxes: Corners i0, i1, j0, j1, k0, k1 of each box, both inclusive; not cut to the volume.
        chosen: The candidate that they correct, proposed by the version that answered; None without one.
    """

    model_config = ConfigDict(frozen=True)
    inside: tuple[Ijk, ...] = ()
    outside: tuple[Ijk, ...] = ()
    boxes: tuple[tuple[int, int, int, int, int, int], ...] = ()
    chosen: LoggedChoice | None = None

    @classmethod
    def of(cls, prompts: Prompts) -> LoggedPrompts:
        """Return the prompts of a request for the log."""
        return cls(
            inside=tuple(click.ijk for click in prompts.positive),
            outside=tuple(click.ijk for click in prompts.negative),
            boxes=tuple(_pairs(box) for box in prompts.boxes),
            chosen=LoggedChoice.of(prompts.chosen) if prompts.chosen else None,
        )

    def prompts(self, version: str | None = None) -> Prompts:
        """Return the logged prompts.

        Args:
            version: Version of the weights that answered, whose candidate was chosen; None if it is not known.
        """
        clicks = [Click(ijk) for ijk in self.inside] + [Click(ijk, positive=False) for ijk in self.outside]
        boxes = tuple(Box.from_pairs(box) for box in self.boxes)
        return Prompts(tuple(clicks), boxes, self.chosen.choice(version) if self.chosen else None)


class LoggedRequest(Record):
    """One request to a model. It holds no path and nothing that a client wrote but the id of an image that exists.

    Attributes:
        at: When it ended, UTC, ISO 8601.
        image: Id of the image in the datastore; `session-` and a hash for that of a session; None when there is none.
        model: Name of the model; None when there is none of that name.
        prompts: What was drawn; None when it could not be read.
        label: Which of the app's labels it was for; None when it was for another.
        result: What came back.
        version: Version of the weights; None when it failed.
        mask: Hash of the mask, as `Result.digest` has it; None without a mask.
        voxels: How many voxels the mask has.
        seconds: Until it was answered.
        error: Why it failed; None when it did not.
    """

    at: str
    image: str | None = None
    model: str | None = None
    prompts: LoggedPrompts | None = None
    label: str | None = None
    result: ResultKind = "mask"
    version: str | None = None
    mask: str | None = None
    voxels: int | None = None
    seconds: float
    error: str | None = None

    @property
    def of_session(self) -> bool:
        """Whether it was about the image of a session, which is not kept."""
        return self.image is not None and SESSION.fullmatch(self.image) is not None


def now() -> str:
    """Return the time as the log has it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class ClickLog:
    """A folder of numbered files, clicks-000001.jsonl and so on, with a request on each line.

    Lines are added to the last file, and a new file begins when that is full; the oldest one is then removed. Processes
    take turns. Our own instead of `RotatingFileHandler`: a file is never renamed or rewritten, so that readers need no
    lock.

    Args:
        folder: Made when the first request is added.
        file_bytes: Size at which a file is full.
        files: How many are kept.
    """

    def __init__(self, folder: Path, *, file_bytes: int = FILE_BYTES, files: int = FILES) -> None:
        self.folder, self._file_bytes, self._files = Path(folder), file_bytes, files
        self._warned = False

    def append(self, request: LoggedRequest) -> None:
        """Add a request; when that fails, such as on a full disk, warn once and continue."""
        try:
            line = request.model_dump_json().encode() + b"\n"
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / ".lock", timeout=LOCK_TIMEOUT), self._last() as file:
                append_line(file, line)
        except (OSError, ValueError) as error:
            if not self._warned:
                self._warned = True
                logger.warning(f"Requests go unlogged, {self.folder} cannot be written: {error}")

    @contextmanager
    def _last(self) -> Iterator[BinaryIO]:
        """Yield the file that is added to."""
        files = log_files(self.folder)
        full = not files or files[-1].stat().st_size >= self._file_bytes
        if full:
            files.append(self.folder / f"clicks-{_number(files[-1]) + 1 if files else 1:06d}.jsonl")
        with files[-1].open("ab+", buffering=0) as file:
            if full:
                sync_folder(self.folder)
                for oldest in files[: -self._files]:
                    oldest.unlink(missing_ok=True)
            yield file


@dataclass(frozen=True)
class LogContent:
    """The content of a log.

    Attributes:
        requests: The earliest first.
        damaged: Lines that could not be read, such as the last one after a power cut.
    """

    requests: list[LoggedRequest]
    damaged: int


def read_log(source: Path) -> LogContent:
    """Read a log.

    Args:
        source: A file of it, its folder, or the model folder of an app.

    Raises:
        Sam3dError: There is none, or a newer release has written it.
    """
    files = [source] if source.is_file() else log_files(source) or log_files(source / FOLDER)
    if not files:
        raise Sam3dError(f"{source} holds no click log: give a .jsonl file, its folder, or the app's model folder")
    requests, damaged = [], 0
    for file in filter(Path.exists, files):  # the oldest may have just gone
        for line in file.read_bytes().splitlines():
            try:
                if line.strip():
                    requests.append(LoggedRequest.parse(json.loads(line), file))
            except NewerFormatError:
                raise
            except (ValueError, RecursionError):
                damaged += 1
    return LogContent(requests, damaged)


def log_files(folder: Path) -> list[Path]:
    """Return the files of a log, the earliest first."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if FILE.fullmatch(path.name)), key=_number)


def _number(file: Path) -> int:
    name = FILE.fullmatch(file.name)
    assert name is not None
    return int(name.group(1))


def _pairs(box: Box) -> tuple[int, int, int, int, int, int]:
    (i0, j0, k0), (i1, j1, k1) = box.lower, box.upper
    return i0, i1, j0, j1, k0, k1
