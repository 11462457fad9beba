"""The inputs of a run of an update, by which an interrupted one is continued."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

from pydantic import JsonValue, ValidationError

from sam3d_label.errors import NewerFormatError, Sam3dError
from sam3d_label.io import Record, read_record, write_json
from sam3d_label.training.settings import TrainSettings

logger = logging.getLogger(__name__)
RUN, RUN_FILE = "run", "run.json"

BY_CASES = "steps_per_epoch"
"""The setting that follows from the number of cases, so that new labels change it."""


class StartedRun(Record):
    """The inputs of a run.

    Attributes:
        start: Signature of the weights that it started from.
        settings: How it trains.
        cases: Ids of its cases. Files of older releases have none: such a run continues with all cases.
    """

    start: str
    settings: dict[str, JsonValue]
    cases: list[str] | None = None

    @classmethod
    def of(cls, start: str, settings: TrainSettings, cases: Collection[str]) -> StartedRun:
        """Return the inputs of a run that begins."""
        return cls(start=start, settings=settings.model_dump(mode="json"), cases=sorted(cases))

    def train_settings(self) -> TrainSettings:
        """Return how it trains.

        Raises:
            ValidationError: Another release has written settings that this one does not have.
        """
        return TrainSettings.model_validate(self.settings)

    def why_not_continued(self, wanted: StartedRun) -> str:
        """Return why this run cannot be continued where another one is wanted; empty if it can.

        Cases that are only in the other one do not count: they wait for the next run.
        """
        if self.start != wanted.start:
            return "other weights are active"
        ours, theirs = dict(self.settings), dict(wanted.settings)
        if self.cases is not None:
            theirs[BY_CASES] = ours[BY_CASES]
        changed = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        if changed:
            return f"other settings are requested ({', '.join(changed)})"
        gone = sorted(set(self.cases or ()) - set(wanted.cases or ()))
        return f"the label of {gone[0]} can no longer be used" if gone else ""


def interrupted_run(folder: Path, wanted: StartedRun) -> StartedRun | None:
    """Return the interrupted run in a folder; None if there is none that can be continued, with the reason in the log.

    Args:
        folder: Folder of the run.
        wanted: The run that would begin instead.

    Raises:
        NewerFormatError: A newer release has begun it.
    """
    try:
        run = read_record(StartedRun, folder / RUN_FILE)
        if run is not None:
            run.train_settings()
    except NewerFormatError:
        raise
    except (Sam3dError, ValidationError):
        logger.warning("The interrupted training starts afresh: its settings cannot be read")
        return None
    if run is None:
        return None
    reason = run.why_not_continued(wanted)
    if reason:
        logger.warning(f"The interrupted training starts afresh: {reason}")
        return None
    return run


def begin_run(folder: Path, run: StartedRun) -> None:
    """Remove an earlier run, and write the inputs of this one."""
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / RUN_FILE, run.model_dump(mode="json"), indent=None)
