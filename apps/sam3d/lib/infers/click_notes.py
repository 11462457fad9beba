"""Convert requests to lines of the click log, without data that could identify a patient."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fastapi import HTTPException

from lib.infers.answer import AnswerParams
from lib.infers.sam3d import SAM3DAutoTask, SAM3DInferTask, VolumeTask
from lib.requests import parse, parse_unprompted
from sam3d_label.errors import Sam3dError
from sam3d_label.studies.click_log import ClickLog, LoggedPrompts, LoggedRequest, ResultKind, now

LONGEST_REASON = 200
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass
class RequestNote:
    """Data about a request that are collected while it is processed.

    Attributes:
        task: The model; None if there is none of that name.
        path: Path of the image; empty if there is none.
        answer: The JSON part of the answer; empty until there is one.
    """

    task: VolumeTask | None = None
    path: str = ""
    answer: AnswerParams = field(default_factory=AnswerParams)


class ClickNotes:
    """Writes every request to the click log, successful or rejected.

    Args:
        log: The log; None to write nothing.
        labels: Names of the structures that the app segments.
        count: Called with the model, the request and the answer of each request to a model that exists, for metrics;
            the answer is None when the request was rejected.
    """

    def __init__(
        self,
        log: ClickLog | None,
        labels: Sequence[str],
        count: Callable[[str, Mapping[str, object], AnswerParams | None], object] = lambda *_: None,
    ) -> None:
        self._log, self._labels, self._count = log, labels, count

    @contextmanager
    def record(self, request: Mapping[str, object]) -> Iterator[RequestNote]:
        """Write a request when the block ends.

        Args:
            request: As it came, with its `params` merged.
        """
        began, note = time.perf_counter(), RequestNote()
        try:
            yield note
        except Exception as error:
            self._write(request, note, time.perf_counter() - began, error)
            raise
        self._write(request, note, time.perf_counter() - began)

    def _write(
        self, request: Mapping[str, object], note: RequestNote, seconds: float, error: Exception | None = None
    ) -> None:
        if note.task is not None:
            self._count(str(request["model"]), request, None if error else note.answer)
        if self._log is None:
            return
        version = note.answer.get("model_version")
        drawn, label, result = self._read(request, note.task, version)
        self._log.append(
            LoggedRequest(
                at=now(),
                image=image_name(request) if note.path else None,
                model=str(request["model"]) if note.task else None,
                prompts=drawn,
                label=label if label in self._labels else None,
                result=result,
                version=version,
                mask=note.answer.get("mask_digest"),
                voxels=note.answer.get("voxels"),
                seconds=round(seconds, 4),
                error=reason(error, note.path) if error else None,
            )
        )

    def _read(
        self, request: Mapping[str, object], task: VolumeTask | None, version: str | None
    ) -> tuple[LoggedPrompts | None, str | None, ResultKind]:
        """Return the prompts that the version used, label and kind of result; no prompts if they cannot be read."""
        try:
            if isinstance(task, SAM3DInferTask):
                prompts, output = parse(request, labels=self._labels)
                used = prompts.for_weights(version) if version else prompts
                return LoggedPrompts.of(used), output.label, output.result
            found = task.target_label() if isinstance(task, SAM3DAutoTask) else self._labels[0]
            return LoggedPrompts(), parse_unprompted(request, labels=self._labels, found=found).label, "mask"
        except Sam3dError:
            return None, None, "mask"


def image_name(request: Mapping[str, object]) -> str:
    """Return the id of an image; of a session, whose image has a name of its sender's, a hash of the session's id."""
    session = request.get("session")
    if not isinstance(session, Mapping):
        return str(request["image"])
    return "session-" + hashlib.sha256(str(session.get("name")).encode()).hexdigest()[:12]


def reason(error: Exception, path: str) -> str:
    """Return why a request failed, without the image's name, text from the client, and paths.

    Args:
        error: The exception.
        path: Path of the image, empty if there is none.
    """
    cause = error.__cause__ or error
    said = str(cause.detail if isinstance(cause, HTTPException) else cause)
    for name in (path, os.path.basename(path)):
        said = said.replace(name, "the image") if name else said
    said = QUOTED.sub("…", said).encode(errors="replace").decode()
    kind = type(cause).__name__
    return kind if {"/", "\\"} & set(said) else f"{kind}: {said}"[:LONGEST_REASON]
