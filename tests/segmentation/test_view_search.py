from dataclasses import replace

import numpy as np
import pytest
import torch

from sam3d_label.image.intensity import Window
from sam3d_label.image.volume import Volume
from sam3d_label.network import SAM3D
from sam3d_label.segmentation.crop_encoder import CropEncoder
from sam3d_label.segmentation.prompts import Box, Click, Prompts
from sam3d_label.segmentation.segmenter import Segmenter
from sam3d_label.segmentation.view_search import View, ViewSearch
from tests.helpers.networks import Ball


@pytest.fixture
def volume():
    return Volume(np.zeros((80, 70, 60)), np.diag([-1.0, 1.0, 2.0, 1]))


def test_a_view_is_carried_to_another_crop_where_the_two_meet(volume):
    """Its logit is a height in mm, so that the expected value of each voxel is known."""
    wide = volume.frame((40, 35, 30), 2.0, 32)
    close = volume.frame((44, 30, 28), 0.5, 32)
    along = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), -1).reshape(-1, 3)
    height = lambda frame, at: frame.to_ijk(at)[:, 2] * 2.0 + frame.to_ijk(at)[:, 0]  # noqa: E731
    view = View(wide, torch.from_numpy(height(wide, along)).float().reshape(32, 32, 32))
    carried = view.resample(close, 16)[0, 0].numpy()
    half = np.stack(np.meshgrid(*[np.linspace(0, 31, 16)] * 3, indexing="ij"), -1).reshape(-1, 3)
    assert np.allclose(carried.ravel(), height(close, half), atol=1e-3)


@pytest.fixture
def search_in_ball(small_weights):
    """The search in an image of a bright ball of some radius, mm, by a network that segments bright voxels."""

    def search(radius, prompts, capabilities=None) -> ViewSearch:
        grid = np.indices((80, 80, 80)) - np.array([40, 40, 40])[:, None, None, None]
        volume = Volume(np.where((grid**2).sum(0) <= radius**2, 200.0, 50.0), np.eye(4))
        card = small_weights.card.model_copy(update={"intensity": Window(lower=50, upper=200, mean=125, std=75)})
        if capabilities is not None:
            card = card.model_copy(update={"capabilities": capabilities})
        weights = replace(small_weights, model=Ball(small_weights.model), card=card)
        return Segmenter(volume, weights).search(Prompts.of(prompts))

    return search


def test_a_target_larger_than_the_crop_gets_a_wide_view_and_tiles_along_its_border(search_in_ball):
    search = search_in_ball(26, [Click((40, 40, 40))])
    (target,) = search.targets()
    assert target.whole.frame.spacing == 2.0
    assert {tile.frame.spacing for tile in target.tiles} == {search.grid.first} == {1.0}
    assert all(tile.wider is target.whole for tile in target.tiles)


def test_the_same_clicks_again_encode_nothing_more(search_in_ball):
    search = search_in_ball(26, [Click((40, 40, 40))])
    list(search.targets())
    encoded = search.encoder.encoded
    list(search.targets())
    assert search.encoder.encoded == encoded > 2


def test_a_target_that_one_crop_shows_gets_no_tiles(search_in_ball):
    search = search_in_ball(10, [Click((40, 40, 40))])
    (target,) = search.targets()
    assert target.tiles == ()
    assert search.encoder.encoded == 1


def test_weights_that_know_no_masks_get_tiles_only_where_a_click_is(search_in_ball):
    (target,) = search_in_ball(26, [Click((40, 40, 20))], capabilities=["positive_click"]).targets()
    assert target.tiles
    assert all(tile.frame.contains((40, 40, 20)) for tile in target.tiles)


def test_a_box_alone_is_segmented_as_a_click_is(search_in_ball):
    (target,) = search_in_ball(10, [Box((30, 30, 30), (50, 50, 50))]).targets()
    assert bool(target.whole.mask.any())


def test_what_appears_small_gets_a_close_first_view(search_in_ball):
    search = search_in_ball(2, [Click((40, 40, 40))])
    (target,) = search.targets()
    assert target.whole.frame.spacing == 0.5
    assert search.encoder.encoded == 1


def test_of_the_views_that_the_click_allows_the_one_with_the_best_predicted_mask_comes_first(
    search_in_ball, monkeypatch
):
    def predict(dices):
        monkeypatch.setattr(CropEncoder, "predicts_dice", True)
        monkeypatch.setattr(CropEncoder, "predicted_dice", lambda _, frame, click: dices[frame.spacing])

    inside, near = Click((40, 40, 40)), Click((40, 42, 40), positive=False)
    predict({0.5: 0.3, 1.0: 0.6})
    assert search_in_ball(2, [inside]).initial_spacing([inside]) == 1.0
    assert search_in_ball(2, [inside, near]).initial_spacing([inside]) == 0.5, "the click outside says that it is small"
    predict({0.5: 0.6, 1.0: 0.3})
    assert search_in_ball(2, [inside]).initial_spacing([inside]) == 0.5
    assert search_in_ball(30, [inside]).initial_spacing([inside]) == 1.0, "the image says that it is large"


@pytest.fixture
def proposing_search(small_weights):
    """A search for the target of one click with weights that predict the Dice of their masks, and its first crop."""
    config = replace(small_weights.model.config, fine=(4, 8), candidates=2)
    weights = replace(small_weights, model=SAM3D(config).eval())
    volume = Volume(np.random.default_rng(0).normal(size=(40, 40, 40)), np.eye(4))
    search = Segmenter(volume, weights).search(Prompts.of([Click((20, 20, 20))]))
    return search, search.grid.frame(np.full((1, 3), 20), 1.0)


def test_the_predicted_dice_of_a_click_is_that_of_the_first_candidate(proposing_search):
    search, frame = proposing_search
    assert search.encoder.predicts_dice
    with torch.inference_mode():
        predicted = search.encoder.predicted_dice(frame, Click((20, 20, 20)))
    (_, dice), _ = search.proposals(search.view(frame))
    assert 0 < dice < 1
    assert predicted == pytest.approx(dice, abs=1e-6)


def test_a_view_whose_dice_was_predicted_is_not_encoded_or_decoded_again(proposing_search, monkeypatch):
    search, frame = proposing_search
    expected = search.view(frame).logit
    search.encoder.cache.clear()
    with torch.inference_mode():
        search.encoder.predicted_dice(frame, Click((20, 20, 20)))
    monkeypatch.delattr(SAM3D, "encode")
    monkeypatch.delattr(SAM3D, "decode")
    assert torch.equal(search.view(frame).logit, expected)


def test_a_small_box_gets_a_close_view_and_a_large_one_does_not(search_in_ball):
    spacings = [
        next(search_in_ball(0, [Box((40 - r,) * 3, (40 + r,) * 3)]).targets()).whole.frame.spacing for r in (3, 7)
    ]
    assert spacings == [0.5, 1.0]


def test_a_click_outside_nearby_bounds_the_size_of_the_target(search_in_ball):
    inside, near, far = Click((40, 40, 40)), Click((40, 42, 40), positive=False), Click((40, 50, 40), positive=False)
    search = search_in_ball(79, [inside, near])
    assert search.initial_spacing([inside]) == 0.5
    search = search_in_ball(79, [inside, far])
    assert search.initial_spacing([inside]) == search.grid.first


def test_clicks_inside_far_apart_show_that_the_target_is_large(search_in_ball):
    inside, near, apart = Click((40, 40, 40)), Click((40, 42, 40), positive=False), Click((40, 29, 40))
    search = search_in_ball(2, [inside, near, apart])
    assert search.initial_spacing([inside, apart]) == search.grid.first


def test_a_close_first_view_that_cuts_the_mask_makes_way_for_wider_ones(search_in_ball):
    (target,) = search_in_ball(10, [Click((40, 40, 40)), Click((40, 42, 40), positive=False)]).targets()
    assert target.whole.frame.spacing == 1.0
    assert target.tiles == ()
