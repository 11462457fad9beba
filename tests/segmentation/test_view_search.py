from dataclasses import replace

import numpy as np
import pytest
import torch

from sam3d_label.cache import EmbeddingCache
from sam3d_label.image.intensity import Window
from sam3d_label.image.volume import Volume
from sam3d_label.segmentation import crop_grid
from sam3d_label.segmentation.prompts import Box, Click, Prompts
from sam3d_label.segmentation.view_search import HONOURED_MM, Look, View, honour, overlap, stitch
from tests.helpers.networks import Ball


@pytest.fixture
def volume():
    return Volume(np.zeros((80, 70, 60)), np.diag([-1.0, 1.0, 2.0, 1]))


def test_a_view_is_carried_to_another_crop_where_the_two_meet(volume):
    """Its logit is a height in mm, so that what is carried over can be told at each voxel."""
    wide = volume.frame((40, 35, 30), 2.0, 32)
    close = volume.frame((44, 30, 28), 0.5, 32)
    along = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), -1).reshape(-1, 3)
    height = lambda frame, at: frame.to_ijk(at)[:, 2] * 2.0 + frame.to_ijk(at)[:, 0]  # noqa: E731
    view = View(wide, torch.from_numpy(height(wide, along)).float().reshape(32, 32, 32))
    carried = view.seen_from(close, 16)[0, 0].numpy()
    half = np.stack(np.meshgrid(*[np.linspace(0, 31, 16)] * 3, indexing="ij"), -1).reshape(-1, 3)
    assert np.allclose(carried.ravel(), height(close, half), atol=1e-3)


def test_tiles_that_agree_leave_no_seam(volume):
    base = np.full(volume.shape, 3.0, np.float32)
    everywhere = tuple(slice(0, n) for n in volume.shape)
    frames = [volume.frame((at, 35, 30), 1.0, 32) for at in (20, 36, 44)]
    logit, region = stitch(volume, (base, everywhere), [(f, torch.full((32, 32, 32), 3.0)) for f in frames])
    assert region == everywhere
    assert np.allclose(logit, 3.0, atol=1e-4)


def test_tiles_rule_in_their_middle_and_the_base_where_there_are_none(volume):
    base = np.full(volume.shape, -2.0, np.float32)
    everywhere = tuple(slice(0, n) for n in volume.shape)
    frame = volume.frame((40, 35, 30), 1.0, 32)
    logit, _ = stitch(volume, (base, everywhere), [(frame, torch.full((32, 32, 32), 4.0))])
    assert logit[40, 35, 30] == pytest.approx(4.0, abs=0.2)
    assert logit[5, 5, 5] == -2.0
    along = logit[10:70, 35, 30]
    assert np.abs(np.diff(along)).max() < 3.5, "a step as high as the difference is a seam"


def test_clicks_that_the_network_did_not_follow_get_what_is_near_and_no_more():
    logit = np.full((20, 20, 20), -3.0, np.float32)
    logit[:5] = 3.0
    region = (slice(10, 30), slice(0, 20), slice(0, 20))
    inside, outside, followed = Click((20, 8, 8)), Click((12, 8, 8), positive=False), Click((11, 15, 15))
    elsewhere = Click((5, 5, 5))
    before, spacing = logit.copy(), np.array([1.0, 1.0, 2.0])
    honour((logit, region), (inside, outside, followed, elsewhere), spacing)
    assert logit[10, 8, 8] > 0 > logit[2, 8, 8]
    changed = np.argwhere(logit != before) + np.array([10, 0, 0])
    away = [np.linalg.norm((changed - click.ijk) * spacing, axis=1) for click in (inside, outside)]
    assert 2 * 27 > len(changed) > 2
    assert np.minimum(*away).max() <= HONOURED_MM


def test_two_clicks_side_by_side_share_what_is_between_them():
    logit = np.zeros((9, 9, 9), np.float32)
    clicks = [Click((4, 4, 4)), Click((5, 4, 4), positive=False)]
    honour((logit, (slice(0, 9),) * 3), clicks, np.ones(3))
    assert logit[4, 4, 4] > 0 >= logit[5, 4, 4]


def test_overlap_of_two_regions_is_the_same_voxels():
    first = (slice(10, 20), slice(0, 5), slice(3, 9))
    second = (slice(15, 30), slice(0, 5), slice(0, 4))
    in_first, in_second = overlap(first, second)
    assert in_first == (slice(5, 10), slice(0, 5), slice(0, 1))
    assert in_second == (slice(0, 5), slice(0, 5), slice(3, 4))
    apart = overlap(first, (slice(25, 30), slice(0, 5), slice(0, 4)))[0]
    assert np.zeros((10, 5, 6))[apart].size == 0


@pytest.mark.parametrize("field", [16, 40, 200])
def test_a_tiling_shows_every_voxel(volume, field):
    corners = np.array([[0, 0, 0], np.array(volume.shape) - 1], float)
    frames = crop_grid.tiling(volume, corners, field / 32, 32)
    voxels = np.stack(np.meshgrid(*[np.arange(0, n, 3) for n in volume.shape], indexing="ij"), -1).reshape(-1, 3)
    assert np.any([frame.holds(voxels) for frame in frames], axis=0).all()
    assert (len(frames) == 1) == (field == 200)


def test_border_tiles_leave_out_what_lies_deep_inside_or_outside(volume):
    frame = volume.frame((40, 35, 30), 4.0, 32)
    mask = torch.zeros(32, 32, 32, dtype=torch.bool)
    mask[4:28, 6:26, 6:26] = True
    tiles = crop_grid.border_tiles(volume, mask, frame, 1.0, 16)
    assert len(tiles) > 8
    middle = frame.to_ijk([[16, 16, 16]])
    assert not any(np.abs(tile.to_dhw(middle) - 7.5).max() < 2 for tile in tiles)


@pytest.fixture
def look_at(small_weights):
    """A look at a bright ball of some radius, mm, through a network that sees bright voxels."""

    def look(radius, prompts, capabilities=None):
        grid = np.indices((80, 80, 80)) - np.array([40, 40, 40])[:, None, None, None]
        volume = Volume(np.where((grid**2).sum(0) <= radius**2, 200.0, 50.0), np.eye(4))
        card = small_weights.card.model_copy(update={"intensity": Window(lower=50, upper=200, mean=125, std=75)})
        if capabilities is not None:
            card = card.model_copy(update={"capabilities": capabilities})
        weights = replace(small_weights, model=Ball(small_weights.model), card=card)
        return Look(volume, weights, card.intensity.fit(volume.array), EmbeddingCache(10**9), Prompts.of(prompts))

    return look


def test_a_target_larger_than_the_crop_gets_a_wide_view_and_tiles_along_its_border(look_at):
    look = look_at(26, [Click((40, 40, 40))])
    (seen,) = look.targets()
    assert seen.view.frame.spacing == 2.0
    assert {tile.frame.spacing for tile in seen.tiles} == {look.first} == {1.0}
    assert all(tile.wider is seen.view for tile in seen.tiles)


def test_the_same_clicks_again_encode_nothing_more(look_at):
    look = look_at(26, [Click((40, 40, 40))])
    list(look.targets())
    encoded = look.encoded
    list(look.targets())
    assert look.encoded == encoded > 2


def test_a_target_that_one_crop_shows_gets_no_tiles(look_at):
    look = look_at(10, [Click((40, 40, 40))])
    (seen,) = look.targets()
    assert seen.tiles == ()
    assert look.encoded == 1


def test_weights_that_know_no_masks_get_tiles_only_where_a_click_is(look_at):
    (seen,) = look_at(26, [Click((40, 40, 20))], capabilities=["positive_click"]).targets()
    assert seen.tiles
    assert all(tile.frame.contains((40, 40, 20)) for tile in seen.tiles)


def test_a_box_alone_is_looked_at_as_a_click_is(look_at):
    (seen,) = look_at(10, [Box((30, 30, 30), (50, 50, 50))]).targets()
    assert bool(seen.view.mask.any())


def test_what_looks_small_is_looked_at_closely_from_the_first_view_on(look_at):
    look = look_at(2, [Click((40, 40, 40))])
    (seen,) = look.targets()
    assert seen.view.frame.spacing == 0.5
    assert look.encoded == 1


def test_a_small_box_is_looked_at_closely_and_a_large_one_is_not(look_at):
    spacings = [next(look_at(0, [Box((40 - r,) * 3, (40 + r,) * 3)]).targets()).views[-1].frame.spacing for r in (3, 7)]
    assert spacings == [0.5, 1.0]


def test_a_click_outside_nearby_says_that_the_target_is_small(look_at):
    inside, near, far = Click((40, 40, 40)), Click((40, 42, 40), positive=False), Click((40, 50, 40), positive=False)
    look = look_at(79, [inside, near])
    assert look.opening_spacing([inside]) == 0.5
    look = look_at(79, [inside, far])
    assert look.opening_spacing([inside]) == look.first


def test_clicks_inside_that_lie_apart_say_that_it_is_not(look_at):
    inside, near, apart = Click((40, 40, 40)), Click((40, 42, 40), positive=False), Click((40, 29, 40))
    look = look_at(2, [inside, near, apart])
    assert look.opening_spacing([inside, apart]) == look.first


def test_a_close_first_view_that_cuts_the_mask_makes_way_for_wider_ones(look_at):
    (seen,) = look_at(10, [Click((40, 40, 40)), Click((40, 42, 40), positive=False)]).targets()
    assert seen.view.frame.spacing == 1.0
    assert seen.tiles == ()
