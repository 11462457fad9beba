"""The share of new weights in what is published: as much as the team's cases gain and the reference set allows."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from sam3d_label.model_update.gate import means
from sam3d_label.model_update.reference_set import ReferenceSet
from sam3d_label.model_update.report import (
    DICES,
    REFERENCE_LIMIT,
    CaseScore,
    ReferenceReport,
    ShareResult,
    UpdateReport,
    Verdict,
    changes_by_kind,
    largest_loss,
)
from sam3d_label.network import PromptableNetwork
from sam3d_label.training.dataset import OpenedCase
from sam3d_label.weights import Weights

SHARES = (0.3, 0.5, 0.7, 1.0)
"""Shares of the new weights that are tried."""

FEW = 6
"""Validation cases on which the shares are compared; the chosen one is then measured on all of them."""

Measure = Callable[[Weights, Sequence[OpenedCase]], list[CaseScore]]


@dataclass(frozen=True)
class KnowledgeSettings:
    """How much of the earlier knowledge an update must keep.

    Attributes:
        limit: Largest loss of Dice on any kind of reference cases with which weights are published; None for full
            specialisation.
        own_cases: Folder with images/ and labels/ of a team's own reference cases.
        seconds: Time of work after which no further share is tried; waiting while clicks are answered does not count.
    """

    limit: float | None = REFERENCE_LIMIT
    own_cases: Path | None = None
    seconds: float = 900.0


@dataclass(frozen=True)
class Trained:
    """A trained network, and the cases that it is compared on.

    Attributes:
        weights: The network with its card.
        cases: Cases that did not train it.
    """

    weights: Weights
    cases: Sequence[OpenedCase]


@dataclass(frozen=True)
class Baseline:
    """The scores on the reference set that an update must keep.

    Attributes:
        version: Version of the weights that reached them.
        scores: The scores.
    """

    version: str
    scores: list[CaseScore]


def interpolated(before: PromptableNetwork, after: PromptableNetwork, share: float) -> PromptableNetwork:
    """Return a network whose weights are the given share of the way from `before` to `after`.

    Between two networks of which one was trained from the other, the loss hardly rises: the interpolation keeps what
    both can do (WiSE-FT, Wortsman et al., arXiv 2109.01903).
    """
    mixed = copy.deepcopy(after)
    earlier = before.state_dict()
    with torch.no_grad():
        for name, tensor in mixed.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.lerp(earlier[name].to(tensor), tensor, share))
    return mixed


def find_baseline(
    serving: Weights,
    report: UpdateReport | None,
    reference: ReferenceSet,
    measure: Measure,
    limit: float | None = REFERENCE_LIMIT,
) -> Baseline:
    """Return the scores that an update of the active weights must keep.

    They are inherited from version to version, so that many small losses cannot add up to a large one. They begin anew
    with the active weights if the set is another one, or if those have already lost more than the limit: a person has
    published them, or had turned the limit off.

    Args:
        serving: The active weights.
        report: Report of the update that made them; None if no update did.
        reference: The reference set.
        measure: Scores weights on cases.
        limit: Largest loss; None for the default.
    """
    known = report.reference if report else None
    if known is None or known.digest != reference.digest:
        return Baseline(serving.version, measure(serving, reference.cases))
    if largest_loss(known.scores, known.baseline) > (REFERENCE_LIMIT if limit is None else limit):
        return Baseline(serving.version, known.scores)
    return Baseline(known.baseline_version, known.baseline)


@dataclass
class ShareSearch:
    """Measures interpolations between the weights before an update and after it, and chooses one.

    The shares are tried from the smallest on, until one loses more than the limit on the reference set: a larger share
    loses more. Without a limit they are tried from the largest on.

    Args:
        before: The weights that training started from.
        measure: Scores weights on cases.
        reference: The reference set.
        baseline: The scores that must be kept.
        limit: Largest loss on the reference set; None for no limit.
        shares: Shares to try, the smallest first.
        seconds: Time after which no further share is tried.
        clock: Seconds of work, as `seconds` counts them.

    Attributes:
        results: What was measured of each share.
    """

    before: Weights
    measure: Measure
    reference: ReferenceSet
    baseline: Baseline
    limit: float | None = REFERENCE_LIMIT
    shares: Sequence[float] = SHARES
    seconds: float = KnowledgeSettings.seconds
    clock: Callable[[], float] = time.monotonic
    results: list[ShareResult] = field(default_factory=list)
    _reference_scores: dict[float, list[CaseScore]] = field(default_factory=dict)
    _scores: dict[float, list[CaseScore]] = field(default_factory=dict)

    def choose(self, trained: Sequence[Trained]) -> float:
        """Return the share with the highest mean Dice on validation cases of those within the limit.

        Where none is, it is the smallest, so that the version that is kept as rejected has lost least.

        Args:
            trained: The new weights, then those that were trained without one case each.
        """
        ends = self.clock() + self.seconds
        for share in self.shares if self.limit is not None else reversed(self.shares):
            if self.results and (self.clock() > ends or not self.is_allowed(self.results[-1])):
                break
            self.results.append(self._try(trained, share))
        allowed = [result for result in self.results if self.is_allowed(result)]
        return max(allowed, key=_validation_dice).share if allowed else self.results[0].share

    def is_allowed(self, result: ShareResult) -> bool:
        """Return whether a share loses no more on the reference set than the limit."""
        return self.limit is None or (result.loss or 0.0) <= self.limit

    def weights(self, trained: Trained, share: float) -> Weights:
        """Return the weights of a share."""
        if share == 1:
            return trained.weights
        model = interpolated(self.before.model, trained.weights.model, share)
        weights, name = trained.weights, f"{share:.0%} candidate"
        return replace(weights, model=model, version=name, signature=f"{weights.signature} {share}")

    def scores(self, trained: Sequence[Trained], share: float) -> list[CaseScore]:
        """Return the scores of a share on all cases that the trained networks are compared on."""
        known = self._scores.get(share, [])
        return known + self._measure_team(trained, share, len(known), None)

    def report(self, share: float) -> ReferenceReport:
        """Return the comparison on the reference set, for a version with this share of the new weights."""
        return ReferenceReport(
            digest=self.reference.digest,
            limit=self.limit,
            baseline_version=self.baseline.version,
            baseline=self.baseline.scores,
            scores=self._reference_scores[share],
            skipped=self.reference.skipped,
        )

    def apply_to(self, verdict: Verdict, share: float) -> Verdict:
        """Return the verdict of the gate on a share, with what it loses on the reference set; it may reject it."""
        changes = changes_by_kind(self._reference_scores[share], self.baseline.scores)
        worst = max(changes, key=lambda change: change.loss)
        cost = f"{worst.kind} reference cases {worst.before:.3f} → {worst.after:.3f}"
        if self.limit is not None and worst.loss > self.limit:
            reason = f"already {share:.0%} of the new weights lose more than {self.limit:g} of Dice: {cost}"
            return verdict.model_copy(update={"passes": False, "reason": reason})
        limit = "no limit for " if self.limit is None else ""
        return verdict.model_copy(update={"reason": f"{verdict.reason}; {share:.0%} of the new weights, {limit}{cost}"})

    def _try(self, trained: Sequence[Trained], share: float) -> ShareResult:
        scores = self.measure(self.weights(trained[0], share), self.reference.cases)
        self._reference_scores[share] = scores
        result = ShareResult(share=share, reference=means(scores), loss=largest_loss(scores, self.baseline.scores))
        if not self.is_allowed(result):
            return result
        self._scores[share] = self._measure_team(trained, share, 0, FEW)
        return result.model_copy(update={"validation": means(self._scores[share])})

    def _measure_team(self, trained: Sequence[Trained], share: float, first: int, end: int | None) -> list[CaseScore]:
        """Score the cases from `first` to `end`, counted over all trained networks."""
        wanted = [(each, case) for each in trained for case in each.cases][first:end]
        scores: list[CaseScore] = []
        for each in trained:
            cases = [case for owner, case in wanted if owner is each]
            scores += self.measure(self.weights(each, share), cases) if cases else []
        return scores


def _validation_dice(result: ShareResult) -> float:
    return float(np.mean([result.validation[metric] for metric in DICES]))
