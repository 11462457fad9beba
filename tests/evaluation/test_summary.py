"""The summary of an evaluation, compared with numbers by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sam3d_label.evaluation.cohort import Cohort
from sam3d_label.evaluation.session import ClickRecord
from sam3d_label.evaluation.summary import EvaluationSummary, summarise
from tests.helpers.sessions import COHORT, session


def test_summary_by_hand() -> None:
    summary = summarise(COHORT, [1, 5], 5)
    assert summary.dice == pytest.approx({1: 0.55, 5: 0.8})
    assert summary.nsd_2mm == pytest.approx({1: 0.275, 5: 0.4})
    assert summary.nsd_5mm == pytest.approx({1: 0.55, 5: 0.8})
    assert summary.noc85 == (3 + 5) / 2
    assert summary.noc85_ci95 == (3.0, 5.0)
    assert summary.failures == {"noc80": 0, "noc85": 1, "noc90": 1}
    assert summary.noc_cap == 5
    assert summary.auc == pytest.approx(((3.85 - 0.7) / 4 + (3.5 - 0.65) / 4) / 2)
    assert (summary.seconds_first_click, summary.seconds_next_click) == (3.0, 0.5)
    assert summary.lowered_share == pytest.approx(1 / 7)
    assert summary.honoured_share == 1
    assert summary.cases == 2
    assert [(each.case, each.reason) for each in summary.skipped] == [("c", "the label is empty")]
    low, high = summary.dice_ci95[1]
    assert 0.5 <= low <= 0.55 <= high <= 0.6


def test_the_mask_before_the_first_click_is_counted_apart() -> None:
    unprompted = ClickRecord(clicks=0, placed=0, click=None, dice=0.2, nsd=(0.1, 0.3), seconds=7.0, honoured=0)
    results = [replace(result, unprompted=unprompted) for result in COHORT.results]
    plain = summarise(COHORT, [1, 5], 5)
    summary = summarise(Cohort(results, COHORT.skipped), [0, 1, 5], 5)
    assert plain.seconds_no_click is None
    assert summary.seconds_no_click == summary.seconds_no_click_p95 == 7
    same = summary.model_copy(update={"seconds_no_click": None, "seconds_no_click_p95": None})
    for name, value in (("dice", 0.2), ("nsd_2mm", 0.1), ("nsd_5mm", 0.3)):
        assert getattr(same, name).pop(0) == pytest.approx(value)
        assert getattr(same, f"{name}_ci95").pop(0) == pytest.approx((value, value))
    assert same == plain


def test_one_click_has_no_next_click() -> None:
    summary = summarise(Cohort([session("a", [0.5])]), [1], 1)
    assert summary.seconds_next_click is None
    assert summary.lowered_share is None
    assert summary.auc is None
    json.dumps(summary.model_dump(mode="json"), allow_nan=False)


def test_click_counts_are_strings_in_json() -> None:
    stored = summarise(COHORT, [1, 5], 5).model_dump(mode="json")
    assert set(stored["dice"]) == set(stored["nsd_2mm_ci95"]) == {"1", "5"}
    assert EvaluationSummary.model_validate(json.loads(json.dumps(stored))) == summarise(COHORT, [1, 5], 5)
