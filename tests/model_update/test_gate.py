"""New weights serve when they are not worse: on all validation cases, and on those known before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sam3d_label.image.intensity import Percentile
from sam3d_label.model_update.gate import METRICS, judge, means, score
from sam3d_label.model_update.report import CaseScore
from sam3d_label.training.dataset import OpenedCase


def scores(*values, names="abcdefgh"):
    metrics = ("dice_1", "dice_3", "dice_5", "nsd_3")
    return [CaseScore(case=name, **dict.fromkeys(metrics, value)) for name, value in zip(names, values, strict=False)]


def test_better_and_equal_weights_pass():
    assert judge(scores(0.8, 0.7), scores(0.7, 0.6)).passes
    assert judge(scores(0.7, 0.6), scores(0.7, 0.6)).passes


def test_a_loss_within_the_tolerance_is_not_worse_but_a_sure_one_is():
    assert judge(scores(0.695, 0.605), scores(0.70, 0.60)).passes
    verdict = judge(scores(0.695, 0.595, 0.495), scores(0.70, 0.60, 0.50))
    assert not verdict.passes
    assert verdict.differences["all"][0].interval == pytest.approx((-0.005, -0.005))


def test_one_metric_that_is_worse_keeps_out():
    candidate = [each.model_copy(update={"nsd_3": 0.2}) for each in scores(0.9, 0.9, 0.9)]
    verdict = judge(candidate, scores(0.5, 0.5, 0.5))
    assert not verdict.passes
    assert "NSD@3 0.500 → 0.200" in str(verdict.reason)


def test_a_batch_of_bad_labels_does_not_vote_for_what_learned_from_it():
    """Five new cases like the candidate; the two known before do not."""
    candidate = scores(0.9, 0.9, 0.9, 0.9, 0.9, 0.4, 0.4)
    serving = scores(0.3, 0.3, 0.3, 0.3, 0.3, 0.8, 0.8)
    assert judge(candidate, serving).passes
    verdict = judge(candidate, serving, known=["f", "g", "gone"])
    assert not verdict.passes
    assert "2 validation cases known before" in str(verdict.reason)
    assert verdict.differences["known"][0].cases == 2


def test_a_capability_that_is_lost_is_named_and_does_not_decide():
    verdict = judge(scores(0.8, 0.7), scores(0.7, 0.6))
    assert verdict.with_lost_capabilities([]) == verdict
    losing = verdict.with_lost_capabilities(["box", "no_click"])
    assert losing.passes
    what = "it can no longer take boxes or segment without a click"
    why = "because no session had a box and no case has a target that is learned without a prompt"
    assert losing.reason == f"{verdict.reason}; {what}, {why}"
    assert losing.lost == ("box", "no_click")


def test_only_the_same_cases_are_compared():
    for candidate, serving in (([], []), (scores(0.1), scores(0.1, 0.2)), (scores(0.1), scores(0.1, names="z"))):
        with pytest.raises(ValueError, match="same cases"):
            judge(candidate, serving)


def test_scores_are_those_of_a_session(small_weights, phantom_cases):
    opened = [OpenedCase.open(case, Percentile()) for case in phantom_cases[:2]]
    waited = []
    found = score(small_weights, opened, lambda: waited.append(1))
    assert [each.case for each in found] == [case.name for case in phantom_cases[:2]]
    assert all(0 <= getattr(each, metric) <= 1 for each in found for metric in METRICS)
    assert waited == [1, 1]
    assert set(means(found)) == {"dice_1", "dice_3", "dice_5", "nsd_3"}


def test_weights_that_know_no_clicks_are_worth_nothing(small_weights, phantom_cases):
    card = small_weights.card.model_copy(update={"capabilities": []})
    (found,) = score(replace(small_weights, card=card), [OpenedCase.open(phantom_cases[0], Percentile())])
    assert means([found]) == {"dice_1": 0, "dice_3": 0, "dice_5": 0, "nsd_3": 0}
