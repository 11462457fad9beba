import itertools

import numpy as np
import pytest
import torch

from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.crop_grid import CropGrid, extent, mask_corners
from sam3d_label.segmentation.prompts import Box, Click, Prompts

LPS = np.diag([-1.0, -1.0, 3.0, 1.0])


@pytest.fixture
def volume():
    return Volume(np.zeros((200, 150, 40)), LPS)


def grid_of(volume, crop_mm=64.0, size=64) -> CropGrid:
    """Crops of one spacing."""
    return CropGrid(volume, size, [crop_mm / size], crop_mm / size)


def test_clicks_that_one_crop_can_show_stay_together(volume):
    prompts = Prompts.of([Click((20, 20, 5)), Click((60, 40, 15)), Box((30, 30, 6), (50, 60, 12))])
    assert len(grid_of(volume, 128.0).groups(prompts)) == 1


def test_clicks_far_apart_form_groups_whatever_their_order(volume):
    clicks = [Click((5, 20, 5)), Click((190, 20, 5)), Click((15, 30, 8))]
    parted = [
        {frozenset(c.ijk for c in group) for group in grid_of(volume, 128.0).groups(Prompts.of(order))}
        for order in itertools.permutations(clicks)
    ]
    assert all(p == parted[0] for p in parted)
    assert parted[0] == {frozenset({(5, 20, 5), (15, 30, 8)}), frozenset({(190, 20, 5)})}


def test_a_negative_click_gets_no_crop_of_its_own(volume):
    prompts = Prompts.of([Click((5, 20, 5)), Click((190, 20, 5), positive=False)])
    assert len(grid_of(volume, 128.0).groups(prompts)) == 1


@pytest.mark.parametrize(("edge", "expected"), [(20, 0.5), (50, 1.0), (120, 2.0), (600, 2.0)])
def test_the_first_view_is_the_finest_that_shows_the_volume_up_to_the_base_spacing(edge, expected):
    volume = Volume(np.zeros((edge, 10, 10)), np.eye(4))
    assert CropGrid(volume, 64, [0.5, 1.0, 2.0, 4.0], 2.0).first == expected


def test_a_volume_smaller_than_the_crop_always_gives_the_same_crop():
    volume = Volume(np.zeros((30, 40, 10)), LPS)
    frames = {grid_of(volume).frame(np.array([[i, i, i / 4]]), 1.0) for i in range(0, 30, 5)}
    assert len(frames) == 1
    assert frames.pop().centre == (14.5, 19.5, 4.5)


def test_nearby_clicks_share_a_crop_and_distant_ones_do_not(volume):
    near = {grid_of(volume).frame(np.array([[100 + d, 75.0, 20.0]]), 1.0) for d in (-4.0, 0.0, 4.0)}
    far = grid_of(volume).frame(np.array([[30.0, 75, 20]]), 1.0)
    assert len(near) == 1
    assert far not in near


@pytest.mark.parametrize("click", [(0, 0, 0), (199, 149, 39), (0, 149, 20), (64, 75, 20), (111, 3, 39)])
def test_a_crop_shows_its_click_and_does_not_leave_the_volume_needlessly(volume, click):
    frame = grid_of(volume).frame(np.array([click], float), 1.0)
    assert frame.contains(click)
    low, high = np.sort(frame.to_ijk([[-0.5] * 3, [63.5] * 3]), axis=0)
    assert (low[:2] >= -0.51).all()
    assert (high[:2] <= np.array(volume.shape)[:2] - 0.49).all()


def test_extent_is_the_longest_edge_of_the_mask():
    mask = torch.zeros(20, 20, 20, dtype=torch.bool)
    assert extent(mask) == 0
    mask[2:4, 5:15, 7] = True
    assert extent(mask) == 0.5


def test_a_mask_is_cut_only_where_the_volume_goes_on(volume):
    frame = volume.frame((31.5, 75, 20), 1.0, 64)
    at_volume_border = torch.zeros(64, 64, 64, dtype=torch.bool)
    at_volume_border[30:34, 30:34, 63] = True
    inner = at_volume_border.flip(2)
    first, second = (grid_of(volume).is_cut(mask, frame) for mask in (at_volume_border, inner))
    assert {first, second} == {True, False}
    assert not grid_of(volume).is_cut(torch.zeros(64, 64, 64, dtype=torch.bool), frame)


def test_the_corners_of_a_mask_are_stored_voxels(volume):
    frame = volume.frame((100, 75, 20), 1.0, 64)
    mask = torch.zeros(64, 64, 64, dtype=torch.bool)
    expected = np.array([[90.0, 70, 18], [110, 80, 22]])
    low, high = np.sort(np.round(frame.to_dhw(expected)), axis=0).astype(int)
    mask[low[0] : high[0] + 1, low[1] : high[1] + 1, low[2] : high[2] + 1] = True
    assert np.abs(np.sort(mask_corners(mask, frame), axis=0) - expected).max() <= 1


@pytest.mark.parametrize("field", [16, 40, 200])
def test_a_tiling_shows_every_voxel(field):
    volume = Volume(np.zeros((80, 70, 60)), np.diag([-1.0, 1.0, 2.0, 1]))
    frames = CropGrid(volume, 32, [field / 32], field / 32).whole_volume()
    voxels = np.stack(np.meshgrid(*[np.arange(0, n, 3) for n in volume.shape], indexing="ij"), -1).reshape(-1, 3)
    assert np.any([frame.holds(voxels) for frame in frames], axis=0).all()
    assert (len(frames) == 1) == (field == 200)


def test_border_tiles_leave_out_what_is_deep_inside_or_outside():
    volume = Volume(np.zeros((80, 70, 60)), np.diag([-1.0, 1.0, 2.0, 1]))
    frame = volume.frame((40, 35, 30), 4.0, 32)
    mask = torch.zeros(32, 32, 32, dtype=torch.bool)
    mask[4:28, 6:26, 6:26] = True
    tiles = CropGrid(volume, 16, [1.0, 4.0], 1.0).border_tiles(mask, frame)
    assert len(tiles) > 8
    middle = frame.to_ijk([[16, 16, 16]])
    assert not any(np.abs(tile.to_dhw(middle) - 7.5).max() < 2 for tile in tiles)


def test_a_mask_that_fills_the_crop_has_no_border_tiles():
    volume = Volume(np.zeros((80, 70, 60)), np.eye(4))
    mask = torch.ones(32, 32, 32, dtype=torch.bool)
    assert CropGrid(volume, 16, [1.0, 4.0], 1.0).border_tiles(mask, volume.frame((40, 35, 30), 4.0, 32)) == []
