"""The report of an update, as stored with a version: what was compared, and what the gate decided."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from sam3d_label.io import Record, RecordPart
from sam3d_label.training.log import EpochLog
from sam3d_label.weights.card import ABILITIES, Capability

TOLERANCE = 0.01
"""Mean loss of a metric that still counts as not worse."""

Compared = Literal["candidate", "serving"]


class CaseScore(RecordPart):
    """Quality of some weights on one case, with the annotator `error_centre`, on the whole stored volume.

    Attributes:
        case: Its name.
        dice_1: Dice after one click.
        dice_3: Dice after three.
        dice_5: Dice after five.
        nsd_3: Surface Dice at 2 mm after three clicks.
    """

    case: str
    dice_1: float
    dice_3: float
    dice_5: float
    nsd_3: float


class Difference(RecordPart):
    """One metric of new weights minus that of the active ones, over the same cases.

    Attributes:
        metric: Its name.
        cases: Number of cases.
        candidate: Mean under the new weights.
        serving: Mean under the active weights.
        mean: Mean difference.
        interval: Its bootstrap 95 % interval.
    """

    metric: str
    cases: int
    candidate: float
    serving: float
    mean: float
    interval: tuple[float, float]

    @property
    def is_worse(self) -> bool:
        """Whether the loss exceeds the tolerance, or its confidence interval excludes zero."""
        return self.mean < -TOLERANCE or self.interval[1] < 0


class Verdict(RecordPart):
    """The decision of the gate.

    Attributes:
        passes: Whether the new weights may be published.
        reason: Why, in a sentence.
        lost: Capabilities of the active weights that the new ones lack; the reason names them.
        tolerance: Mean loss of a metric that counted as not worse.
        differences: Comparisons by group of cases: `all`, and `known`, those that the active weights were compared on
            before.
    """

    passes: bool
    reason: str | None = None
    lost: tuple[Capability, ...] = ()
    tolerance: float = TOLERANCE
    differences: dict[str, list[Difference]] = Field(default_factory=dict)

    def with_lost_capabilities(self, lost: list[Capability]) -> Verdict:
        """Return the same verdict, with the capabilities that the new weights lack."""
        if not lost:
            return self
        abilities = " or ".join(ABILITIES[capability] for capability in lost)
        reason = f"{self.reason}; it can no longer {abilities}"
        return self.model_copy(update={"reason": reason, "lost": tuple(lost)})


class GateScores(RecordPart):
    """Scores of new and of active weights on the same cases in the same order."""

    candidate: list[CaseScore] = Field(default_factory=list)
    serving: list[CaseScore] = Field(default_factory=list)


class UpdateReport(Record):
    """What happened in an update. Reports of older releases lack some of it.

    Attributes:
        version: Number of the new version.
        at: When the weights were compared, UTC, ISO 8601.
        started_from: Version of the weights that training started from.
        serving: Version that was active.
        annotated: Number of usable cases.
        train: Cases that trained.
        validation: Cases that validated.
        left_out_one_by_one: Training cases that were compared on, each with weights that were trained without it.
        skipped: Cases that were not used, and why.
        ledger: Digest of the ledger.
        gate: The decision of the gate; None where none was recorded.
        scores: The scores that it compared.
        means: Means of these by metric; empty without scores.
        memory: How memory was used, and why.
        epochs: The log of the training.
        seconds: How long the update took.
    """

    version: str | None = None
    at: str | None = None
    started_from: str | None = None
    serving: str | None = None
    annotated: int | None = None
    train: list[str] = Field(default_factory=list)
    validation: list[str] = Field(default_factory=list)
    left_out_one_by_one: list[str] = Field(default_factory=list)
    skipped: dict[str, str] = Field(default_factory=dict)
    ledger: str | None = None
    gate: Verdict | None = None
    scores: GateScores = GateScores()
    means: dict[Compared, dict[str, float]] = Field(default_factory=dict)
    memory: str = ""
    epochs: list[EpochLog] = Field(default_factory=list)
    seconds: float | None = None

    @field_validator("gate", mode="before")
    @classmethod
    def _recorded(cls, value: object) -> object:
        return value or None  # an empty one holds no decision
