"""The report of an update, as stored with a version: what was compared, and what the gate decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sam3d_label.io import Record, RecordPart
from sam3d_label.training.log import EpochLog
from sam3d_label.weights.card import ABILITIES, Capability

TOLERANCE = 0.01
"""Mean loss of a metric that still counts as not worse."""

REFERENCE_LIMIT = 0.03
"""Default of the largest loss on the reference set with which weights are published."""

DICES = ("dice_1", "dice_3", "dice_5")
"""Scores whose mean is the quality on a reference case: Dice after one, three and five clicks."""

NOT_LEARNED: Mapping[Capability, str] = {
    "negative_click": "no session had corrections",
    "mask": "no session had corrections",
    "box": "no session had a box",
    "no_click": "no case has a target that is learned without a prompt",
}
"""Why an update did not teach a capability."""

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


class Activation(BaseModel):
    """One activation of a version.

    Attributes:
        version: Its number, or `versions.INITIAL`.
        at: UTC, ISO 8601; empty if unknown.
        by: Who or what activated it; empty if unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: str
    at: str = ""
    by: str = ""


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
        why = " and ".join(dict.fromkeys(NOT_LEARNED[capability] for capability in lost if capability in NOT_LEARNED))
        reason = f"{self.reason}; it can no longer {abilities}" + (f", because {why}" if why else "")
        return self.model_copy(update={"reason": reason, "lost": tuple(lost)})


class GateScores(RecordPart):
    """Scores of new and of active weights on the same cases in the same order."""

    candidate: list[CaseScore] = Field(default_factory=list)
    serving: list[CaseScore] = Field(default_factory=list)


@dataclass(frozen=True)
class KindChange:
    """Quality on a kind of reference cases before and after an update: mean Dice after one, three and five clicks."""

    kind: str
    before: float
    after: float

    @property
    def loss(self) -> float:
        """Fall of the quality; negative for a gain."""
        return self.before - self.after


def changes_by_kind(scores: Sequence[CaseScore], baseline: Sequence[CaseScore]) -> list[KindChange]:
    """Return the change on each kind of reference cases; the name of a case begins with its kind."""

    def quality(of: Sequence[CaseScore], kind: str) -> float:
        return fmean(getattr(each, dice) for each in of if _kind(each) == kind for dice in DICES)

    kinds = dict.fromkeys(_kind(each) for each in baseline)
    return [KindChange(kind, quality(baseline, kind), quality(scores, kind)) for kind in kinds]


def largest_loss(scores: Sequence[CaseScore], baseline: Sequence[CaseScore]) -> float:
    """Return the largest loss on a kind of reference cases: a gain on one does not make up for a loss on another."""
    return max(change.loss for change in changes_by_kind(scores, baseline))


def _kind(score: CaseScore) -> str:
    return score.case.split()[0]


class ShareResult(RecordPart):
    """An interpolation between the previous and the new weights, as it was measured.

    Attributes:
        share: Share of the new weights, above 0, at most 1.
        reference: Means of its scores on the reference set by metric; empty if they were not measured.
        loss: Its `largest_loss` on the reference set; None if not measured.
        validation: Means of its scores on validation cases by metric; empty if it lost too much.
    """

    share: float
    reference: dict[str, float] = Field(default_factory=dict)
    loss: float | None = None
    validation: dict[str, float] = Field(default_factory=dict)


class ReferenceReport(RecordPart):
    """Comparison on the reference set.

    Attributes:
        digest: Digest of the set; scores of sets with other digests cannot be compared.
        limit: Largest loss with which weights are published; None for no limit.
        baseline_version: Version of the weights whose quality must be kept.
        baseline: Their scores.
        scores: Scores of the version that the report is about.
        skipped: Own reference cases that could not be used, and why.
    """

    digest: str
    limit: float | None = None
    baseline_version: str
    baseline: list[CaseScore] = Field(default_factory=list)
    scores: list[CaseScore] = Field(default_factory=list)
    skipped: dict[str, str] = Field(default_factory=dict)

    @property
    def changes(self) -> list[KindChange]:
        """The change on each kind of reference cases."""
        return changes_by_kind(self.scores, self.baseline)


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
        share: Share of the new weights in the version; the rest are those that training started from.
        shares: The shares that were tried, in this order: from the smallest on, without a limit from the largest on.
        reference: The comparison on the reference set; None where there was none.
        kept_active: What a person activated during the update, so that it stays active although the gate passed the new
            version; None where nobody did.
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
    share: float | None = None
    shares: list[ShareResult] = Field(default_factory=list)
    reference: ReferenceReport | None = None
    kept_active: Activation | None = None
    memory: str = ""
    epochs: list[EpochLog] = Field(default_factory=list)
    seconds: float | None = None

    @property
    def is_published(self) -> bool:
        """Whether the update has activated its version."""
        return self.gate is not None and self.gate.passes and self.kept_active is None

    def with_active(self, active: Activation) -> UpdateReport:
        """Return the report of an update whose version was not activated, because a person activated another one."""
        assert self.gate is not None, "the gate has passed the version"
        why = f"not activated, since {active.by or 'somebody'} activated {active.version} during the training"
        gate = self.gate.model_copy(update={"reason": f"{self.gate.reason}; {why}"})
        return self.model_copy(update={"gate": gate, "kept_active": active})

    @field_validator("gate", mode="before")
    @classmethod
    def _recorded(cls, value: object) -> object:
        return value or None  # an empty one holds no decision
