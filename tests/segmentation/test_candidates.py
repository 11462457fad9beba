"""Several masks that one click may mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sam3d_label.errors import PromptError
from sam3d_label.image.volume import Volume
from sam3d_label.network import SAM3D
from sam3d_label.segmentation.prompts import ChosenCandidate, Click, Prompts
from sam3d_label.segmentation.segmenter import Segmenter
from sam3d_label.weights import Weights
from tests.helpers.networks import SMALL


@pytest.fixture
def weights(small_weights: Weights) -> Weights:
    """Return weights with three candidates: two that equal the answer, and an empty one."""
    torch.manual_seed(0)
    model = SAM3D(replace(SMALL, fine=(4, 6), geodesic=(3.0,), candidates=3)).eval()
    assert model.fine_path is not None
    assert model.fine_path.candidates is not None
    with torch.no_grad():
        model.fine_path.candidates.out.bias.copy_(torch.tensor([0.0, 0.0, -1000.0]).repeat_interleave(8))
    return replace(small_weights, model=model)


@pytest.fixture
def volume() -> Volume:
    return Volume(np.random.default_rng(0).gamma(3, 50, (40, 36, 20)), np.eye(4))


def test_candidates_are_masks_of_the_target_with_a_predicted_dice(weights: Weights, volume: Volume) -> None:
    segmenter = Segmenter(volume, weights)
    click = Click((20, 18, 10))
    answer, candidates = segmenter.segment([click]), segmenter.candidates([click])
    predicted = [candidate.predicted_dice for candidate in candidates]
    assert len(predicted) == 3
    assert predicted == sorted(predicted, reverse=True)
    assert all(0 < dice < 1 for dice in predicted)
    smallest, *others = sorted((candidate.result.mask for candidate in candidates), key=np.count_nonzero)
    assert all(np.array_equal(mask, answer.mask) for mask in others)
    assert smallest[click.ijk] == 1, "the click is enforced"
    assert smallest.sum() < 40


def test_candidates_depend_on_the_prompts_only(weights: Weights, volume: Volume) -> None:
    click = Click((20, 18, 10))
    segmenter = Segmenter(volume, weights)
    segmenter.segment([click, Click((5, 5, 5), positive=False)])
    for here, there in zip(segmenter.candidates([click]), Segmenter(volume, weights).candidates([click]), strict=True):
        assert np.array_equal(here.result.mask, there.result.mask)
        assert here.predicted_dice == pytest.approx(there.predicted_dice)


def test_targets_far_apart_are_in_every_candidate(weights: Weights) -> None:
    volume = Volume(np.random.default_rng(0).gamma(3, 50, (160, 30, 30)), np.eye(4))
    card = weights.card.model_copy(update={"scales": (1.0,)})
    clicks = [Click((5, 15, 15)), Click((150, 15, 15))]
    for candidate in Segmenter(volume, replace(weights, card=card)).candidates(clicks):
        assert candidate.result.mask[5, 15, 15] == candidate.result.mask[150, 15, 15] == 1


def test_weights_with_one_mask_have_no_candidates(small_weights: Weights, volume: Volume) -> None:
    with pytest.raises(PromptError, match="no candidates"):
        Segmenter(volume, small_weights).candidates([Click((20, 18, 10))])


CLICK = Click((20, 18, 10))


def chosen(number: int, *corrections: Click) -> Prompts:
    return Prompts((CLICK, *corrections), chosen=ChosenCandidate(Prompts((CLICK,)), number))


@pytest.mark.parametrize("number", range(3))
def test_a_chosen_candidate_is_the_mask_until_it_is_corrected(weights: Weights, volume: Volume, number: int) -> None:
    segmenter = Segmenter(volume, weights)
    candidate = segmenter.candidates([CLICK])[number]
    assert np.array_equal(segmenter.segment(chosen(number)).mask, candidate.result.mask)


@pytest.mark.parametrize("number", range(3))
def test_clicks_outside_only_remove_from_a_chosen_candidate(weights: Weights, volume: Volume, number: int) -> None:
    segmenter = Segmenter(volume, weights)
    mask = segmenter.candidates([CLICK])[number].result.mask
    inside = np.argwhere(mask & (np.indices(mask.shape)[0] != CLICK.ijk[0]))[0]
    outside = Click((int(inside[0]), int(inside[1]), int(inside[2])), positive=False)
    corrected = segmenter.segment(chosen(number, outside)).mask
    assert mask[outside.ijk] == 1
    assert corrected[outside.ijk] == 0
    assert corrected[CLICK.ijk] == 1
    assert not (corrected > mask).any()


def test_clicks_inside_only_add_to_a_chosen_candidate(weights: Weights, volume: Volume) -> None:
    segmenter = Segmenter(volume, weights)
    masks = [candidate.result.mask for candidate in segmenter.candidates([CLICK])]
    smallest = min(range(3), key=lambda number: np.count_nonzero(masks[number]))
    missing = Click((28, 18, 10))
    corrected = segmenter.segment(chosen(smallest, missing)).mask
    assert masks[smallest][missing.ijk] == 0
    assert corrected[missing.ijk] == 1
    assert not (corrected < masks[smallest]).any()


def test_a_click_far_from_a_chosen_candidate_is_in_the_mask(weights: Weights) -> None:
    volume = Volume(np.random.default_rng(0).gamma(3, 50, (160, 30, 30)), np.eye(4))
    card = weights.card.model_copy(update={"scales": (1.0,)})
    near, far = Click((5, 15, 15)), Click((150, 15, 15))
    prompts = Prompts((near, far), chosen=ChosenCandidate(Prompts((near,)), 0))
    mask = Segmenter(volume, replace(weights, card=card)).segment(prompts).mask
    assert mask[near.ijk] == mask[far.ijk] == 1


def test_the_uncertainty_is_that_of_the_corrected_candidate(weights: Weights, volume: Volume) -> None:
    unsure = Segmenter(volume, weights).uncertainty(chosen(0, Click((28, 18, 10))))
    assert unsure.map.shape == volume.shape


def test_a_candidate_of_other_weights_is_ignored(weights: Weights, volume: Volume) -> None:
    segmenter = Segmenter(volume, weights)
    masks = [candidate.result.mask for candidate in segmenter.candidates([CLICK])]
    smallest = min(range(3), key=lambda number: np.count_nonzero(masks[number]))
    expected = {weights.version: masks[smallest], "0001": segmenter.segment([CLICK]).mask}
    for version, mask in expected.items():
        choice = ChosenCandidate(Prompts((CLICK,)), smallest, version)
        assert np.array_equal(segmenter.segment(Prompts((CLICK,), chosen=choice)).mask, mask)
    assert masks[smallest].sum() < expected["0001"].sum()


def test_a_candidate_that_does_not_exist_is_named(weights: Weights, volume: Volume) -> None:
    with pytest.raises(PromptError, match="no candidate 3, only 0 to 2"):
        Segmenter(volume, weights).segment(chosen(3))
