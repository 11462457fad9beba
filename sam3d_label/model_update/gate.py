"""The gate: compare new weights with the active ones on cases that were never trained on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from sam3d_label.evaluation.annotators import error_centre
from sam3d_label.evaluation.metrics import bootstrap_interval
from sam3d_label.evaluation.session import evaluate_case
from sam3d_label.model_update.report import CaseScore, Difference, Verdict
from sam3d_label.segmentation.segmenter import Segmenter
from sam3d_label.training.dataset import OpenedCase
from sam3d_label.weights import Weights

CLICKS = (1, 3, 5)
METRICS = {"dice_1": "Dice@1", "dice_3": "Dice@3", "nsd_3": "NSD@3"}
"""Metrics that decide: name in a score, and name for people."""


def score(weights: Weights, cases: Iterable[OpenedCase], pause: Callable[[], None] = lambda: None) -> list[CaseScore]:
    """Click on each case as `evaluate` does.

    Args:
        weights: The weights to measure.
        cases: The cases, with their truth.
        pause: Called before each case; returns when nobody else needs the device.

    Returns:
        A score for each, in order; 0 for weights that have not learned clicks, which segment nothing.
    """
    if not knows_clicks(weights):
        return [CaseScore(case=case.name, dice_1=0, dice_3=0, dice_5=0, nsd_3=0) for case in cases]
    scores = []
    for case in cases:
        pause()
        scores.append(_score(Segmenter(case.volume, weights), case))
    return scores


def knows_clicks(weights: Weights) -> bool:
    """Return whether weights have learned clicks inside and outside the target."""
    return {"positive_click", "negative_click"} <= set(weights.card.capabilities)


def judge(candidate: Sequence[CaseScore], serving: Sequence[CaseScore], known: Collection[str] = ()) -> Verdict:
    """Compare new weights with the active ones, case by case.

    They must not be worse in any of `METRICS`, neither on all validation cases nor on those known before. The second
    condition prevents a batch of bad labels from favouring the weights that learned from them.

    Args:
        candidate: Scores of the candidate.
        serving: Scores of the active weights, on the same cases in the same order.
        known: Names of the cases that the active weights were compared on when they were published.

    Raises:
        ValueError: The scores are of different cases, or of none.
    """
    if not candidate or [each.case for each in candidate] != [each.case for each in serving]:
        raise ValueError("the gate compares scores of the same cases, at least one")
    groups = {"all": list(range(len(candidate)))}
    earlier = [index for index, each in enumerate(candidate) if each.case in known]
    if earlier:
        groups["known"] = earlier
    differences = {
        group: [_difference(metric, [candidate[i] for i in chosen], [serving[i] for i in chosen]) for metric in METRICS]
        for group, chosen in groups.items()
    }
    worse = [(group, each) for group, rows in differences.items() for each in rows if each.is_worse]
    if not worse:
        best = max(differences["all"], key=lambda each: each.mean)
        reason = f"not worse on {best.cases} validation cases; {format_difference(best)}"
        return Verdict(passes=True, reason=reason, differences=differences)
    group, worst = min(worse, key=lambda pair: pair[1].mean)
    which = "validation cases" if group == "all" else "validation cases known before"
    reason = f"worse on {worst.cases} {which}: {format_difference(worst)}"
    return Verdict(passes=False, reason=reason, differences=differences)


def format_difference(difference: Difference) -> str:
    """Format a difference as `metric active → candidate`."""
    return f"{METRICS[difference.metric]} {difference.serving:.3f} → {difference.candidate:.3f}"


def means(scores: Sequence[CaseScore]) -> dict[str, float]:
    """Return the mean of each metric over cases; empty without cases."""
    return {
        name: float(np.mean([getattr(each, name) for each in scores]))
        for name in CaseScore.model_fields
        if name != "case" and scores
    }


def _score(segmenter: Segmenter, case: OpenedCase) -> CaseScore:
    records = evaluate_case(
        segmenter,
        case.target.array > 0,
        error_centre,
        spacing=case.volume.spacing.tolist(),
        clicks=CLICKS,
        ignored=None if case.ignored is None else case.ignored.array > 0,
    )
    nsd = records[2].nsd
    assert nsd is not None, "surfaces were compared after three clicks"
    dice_1, dice_3, dice_5 = (records[clicks - 1].dice for clicks in CLICKS)
    return CaseScore(case=case.name, dice_1=dice_1, dice_3=dice_3, dice_5=dice_5, nsd_3=nsd[0])


def _difference(metric: str, candidate: Sequence[CaseScore], serving: Sequence[CaseScore]) -> Difference:
    ours = np.array([getattr(each, metric) for each in candidate])
    theirs = np.array([getattr(each, metric) for each in serving])
    return Difference(
        metric=metric,
        cases=len(ours),
        candidate=float(ours.mean()),
        serving=float(theirs.mean()),
        mean=float((ours - theirs).mean()),
        interval=bootstrap_interval((ours - theirs).tolist()),
    )
