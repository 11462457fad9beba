"""As much of the new weights is published as the team's cases gain and the reference set allows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sam3d_label.image.intensity import Percentile
from sam3d_label.image.volume import Volume
from sam3d_label.model_update.reference_set import ReferenceSet
from sam3d_label.model_update.report import (
    CaseScore,
    ReferenceReport,
    UpdateReport,
    Verdict,
    changes_by_kind,
    largest_loss,
)
from sam3d_label.model_update.shares import Baseline, ShareSearch, Trained, find_baseline, interpolated
from sam3d_label.training.dataset import OpenedCase, TrainingCase


def case(name: str) -> OpenedCase:
    array = np.zeros((4, 4, 4), np.float32)
    array[1:3, 1:3, 1:3] = 1
    volume = Volume(array, np.eye(4))
    return OpenedCase.of(TrainingCase(Path(name), Path(name)), volume, volume, Percentile().fit(array))


def scored(name: str, value: float) -> CaseScore:
    return CaseScore(case=name, dice_1=value, dice_3=value, dice_5=value, nsd_3=value)


REFERENCE = ReferenceSet([case("CT a"), case("MR b"), case("PT c")])
TEAM = [case(f"case {number}") for number in range(8)]
BASELINE = [scored("CT a", 0.8), scored("MR b", 0.8), scored("PT c", 0.3)]


class Measured:
    """Measures by share: quality on the team's cases, and on each kind of reference case."""

    def __init__(self, team: dict[float, float], **kinds: dict[float, float]) -> None:
        self.team, self.kinds = team, kinds
        self.calls: list[tuple[float, list[str]]] = []

    def __call__(self, weights, cases):
        share = float(weights.version.split("%")[0]) / 100 if "%" in weights.version else 1.0
        self.calls.append((share, [each.name for each in cases]))
        by_kind = {kind: values.get(share, 0.8) for kind, values in self.kinds.items()}
        return [scored(each.name, by_kind.get(each.name[:2], self.team.get(share, 0.5))) for each in cases]


@pytest.fixture
def search(small_weights):
    """A search with the given measurements, and the new weights with eight cases."""

    def search(measured, **options):
        new = replace(small_weights, version="candidate")
        return ShareSearch(small_weights, measured, REFERENCE, Baseline("0001", BASELINE), **options), [
            Trained(new, TEAM)
        ]

    return search


RISING = {0.3: 0.5, 0.5: 0.6, 0.7: 0.7, 1.0: 0.8}


def test_halfway_weights_are_the_mean(small_weights):
    after = interpolated(small_weights.model, small_weights.model, 1.0)
    with torch.no_grad():
        for parameter in after.parameters():
            parameter.add_(2.0)
    halfway = interpolated(small_weights.model, after, 0.5)
    for before, between in zip(small_weights.model.parameters(), halfway.parameters(), strict=True):
        torch.testing.assert_close(between, before + 1.0)
    for name, tensor in interpolated(small_weights.model, after, 1.0).state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name])


def test_the_share_that_is_best_for_the_team_is_chosen_among_those_that_keep_enough(search):
    losing = {0.3: 0.8, 0.5: 0.79, 0.7: 0.775, 1.0: 0.7}
    found, trained = search(Measured(RISING, CT={}, MR=losing, PT=RISING))
    assert found.choose(trained) == 0.7
    assert [(each.share, round(each.loss, 3)) for each in found.results] == [
        (0.3, 0.0),
        (0.5, 0.01),
        (0.7, 0.025),
        (1.0, 0.1),
    ]
    assert found.results[-1].validation == {}, "what may not be published is not measured on the team's cases"


def test_a_smaller_share_may_be_the_best_for_the_team(search):
    found, trained = search(Measured({0.3: 0.6, 0.5: 0.7, 0.7: 0.65, 1.0: 0.6}, CT={}, MR={}, PT={}))
    assert found.choose(trained) == 0.5


def test_a_gain_on_one_kind_makes_up_for_no_loss_on_another(search):
    measured = Measured(RISING, CT={}, MR={0.3: 0.7}, PT=dict.fromkeys(RISING, 0.9))
    found, trained = search(measured)
    assert found.choose(trained) == 0.3
    verdict = found.apply_to(Verdict(passes=True, reason="not worse"), 0.3)
    assert not verdict.passes
    assert (
        verdict.reason == "already 30% of the new weights lose more than 0.03 of Dice: MR reference cases 0.800 → 0.700"
    )
    assert [share for share, _ in measured.calls] == [0.3], "larger shares lose more"


def test_the_reason_says_how_much_was_published_and_what_it_cost(search):
    found, trained = search(Measured(RISING, CT={1.0: 0.79}, MR={}, PT={}))
    verdict = found.apply_to(Verdict(passes=True, reason="not worse"), found.choose(trained))
    assert verdict.passes
    assert verdict.reason == "not worse; 100% of the new weights, CT reference cases 0.800 → 0.790"


def test_full_specialisation_publishes_what_is_best_for_the_team_and_names_the_cost(search):
    found, trained = search(Measured(RISING, CT={}, MR=dict.fromkeys(RISING, 0.1), PT={}), limit=None)
    assert found.choose(trained) == 1.0
    verdict = found.apply_to(Verdict(passes=True, reason="not worse"), 1.0)
    assert verdict.passes
    assert verdict.reason == "not worse; 100% of the new weights, no limit for MR reference cases 0.800 → 0.100"


def test_when_time_is_up_no_further_share_is_tried(search):
    found, trained = search(Measured(RISING, CT={}, MR={}, PT={}), seconds=0)
    assert found.choose(trained) == 0.3
    assert [each.share for each in found.results] == [0.3]
    found, trained = search(Measured(RISING, CT={}, MR={}, PT={}), seconds=0, limit=None)
    assert found.choose(trained) == 1.0


def test_shares_are_compared_on_a_few_cases_and_the_chosen_one_is_measured_on_all(search):
    measured = Measured(RISING, CT={}, MR={}, PT={})
    found, trained = search(measured)
    share = found.choose(trained)
    assert {len(names) for _, names in measured.calls} == {len(REFERENCE.cases), 6}
    assert [each.case for each in found.scores(trained, share)] == [each.name for each in TEAM]
    assert measured.calls[-1] == (share, ["case 6", "case 7"])


def test_weights_trained_without_a_case_are_interpolated_too(search, small_weights):
    measured = Measured(RISING, CT={}, MR={}, PT={})
    found, _ = search(measured)
    trained = [Trained(replace(small_weights, version="candidate"), [each]) for each in TEAM[:2]]
    found.scores(trained, 0.5)
    assert measured.calls == [(0.5, ["case 0"]), (0.5, ["case 1"])]


def report_of(scores: list[CaseScore], digest: str = REFERENCE.digest) -> UpdateReport:
    return UpdateReport(
        reference=ReferenceReport(digest=digest, baseline_version="shipped", baseline=BASELINE, scores=scores)
    )


def test_the_baseline_is_inherited_and_begins_anew_with_another_set_or_after_a_large_loss(small_weights):
    measured = Measured({}, CT={1.0: 0.5}, MR={1.0: 0.5}, PT={1.0: 0.5})
    little = [each.model_copy(update={"dice_1": each.dice_1 - 0.05}) for each in BASELINE]
    assert find_baseline(small_weights, report_of(little), REFERENCE, measured) == Baseline("shipped", BASELINE)
    assert measured.calls == [], "nothing is measured again"
    much = [each.model_copy(update={"dice_1": each.dice_1 - 0.1}) for each in BASELINE]
    assert find_baseline(small_weights, report_of(much), REFERENCE, measured) == Baseline("random", much)
    for unknown in (None, UpdateReport(), report_of(little, "of another set")):
        found = find_baseline(small_weights, unknown, REFERENCE, measured)
        assert (found.version, found.scores[0].dice_1) == ("random", 0.5)


def test_quality_is_the_mean_over_clicks_and_compared_by_kind():
    after = [scored("CT a", 0.8), scored("MR b", 0.8).model_copy(update={"dice_5": 0.5}), scored("PT c", 0.9)]
    assert [change.kind for change in changes_by_kind(after, BASELINE)] == ["CT", "MR", "PT"]
    assert largest_loss(after, BASELINE) == pytest.approx(0.1)
