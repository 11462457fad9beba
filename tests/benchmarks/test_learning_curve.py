"""What the learning curve counts, and what a strategy chooses in it."""

from __future__ import annotations

import curve_report
import learning_curve
import pytest

from sam3d_label.training import TrainingCase
from sam3d_label.training.cases import OpenedCases
from tests.helpers.phantoms import small_phantoms


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> dict[str, TrainingCase]:
    """Four volumes to choose from."""
    return {case.name: case for case in small_phantoms(tmp_path_factory.mktemp("phantoms"), 4, (28, 26, 10))}


@pytest.fixture
def setup(small_weights, pool, tmp_path):
    nothing = OpenedCases([], small_weights.card.intensity, max_bytes=0)
    return learning_curve.Setup(small_weights, pool, nothing, tmp_path, {"sam3d": 10, "unet": 10})


def row(arm: str, annotated: int, case: str, dice: float, seed: int = 0) -> dict[str, str]:
    metrics = {"dice_1": str(dice), "dice_3": "0.8", "dice_5": "0.9", "noc85": "4"}
    return {"arm": arm, "seed": str(seed), "annotated": str(annotated), "case": case, **metrics, "seconds": "1"}


def test_an_arm_is_paired_with_random_case_by_case():
    rows = [
        *(row("random", 1, "a", dice, seed) for seed, dice in enumerate((0.2, 0.4))),
        *(row("random", 1, "b", dice, seed) for seed, dice in enumerate((0.6, 0.8))),
        row("first", 1, "b", 0.8),
        row("first", 1, "a", 0.4),
        row("first", 2, "a", 0.4),
    ]
    arms = curve_report.summarise(rows)
    assert arms["first"][0]["dice_1_over_random"] == pytest.approx([0.1, 0.1, 0.1])
    assert "dice_1_over_random" not in arms["first"][1], "random was not measured there"
    assert "dice_1_over_random" not in arms["random"][0]
    assert arms["random"][0]["dice_1"][0] == pytest.approx(0.5)


@pytest.mark.parametrize("arm", ["random", "first", "uncertainty", "diverse", "unet", "unet_same_crops"])
def test_a_strategy_adds_to_what_is_annotated_without_repeating(arm, setup):
    choose = learning_curve.Choosing(setup, arm, 0)
    two = choose([], 2, setup.weights)
    three = choose(two, 3, setup.weights)
    assert three[:2] == two
    assert len(set(three)) == 3
    assert set(three) <= set(setup.pool)


def test_the_u_net_trains_on_the_same_crops(small_weights):
    ours, theirs = (learning_curve.settings_of(arm, 5, 20, small_weights.card, 3) for arm in ("random", "unet"))
    for name in ("clicks", "homogeneous", "inference_share", "inference_spacings", "seed", "steps_per_epoch"):
        assert getattr(theirs, name) == getattr(ours, name), name


def test_uncertainty_asks_the_doubt_of_those_it_may_choose_only(setup, monkeypatch):
    asked = []
    score_volume = learning_curve.score_volume
    monkeypatch.setattr(
        learning_curve, "score_volume", lambda segmenter: asked.append(segmenter) or score_volume(segmenter)
    )
    choose = learning_curve.Choosing(setup, "uncertainty", 0)
    one = choose([], 1, setup.weights)
    assert not asked, "the most typical image begins"
    choose(one, 2, setup.weights)
    assert len(asked) == len(setup.pool) - 1
