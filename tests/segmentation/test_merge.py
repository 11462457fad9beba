import numpy as np
import pytest
import torch

from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.merge import ENFORCED_MM, enforce_clicks, merge_tiles, overlap
from sam3d_label.segmentation.prompts import Click


@pytest.fixture
def volume():
    return Volume(np.zeros((80, 70, 60)), np.diag([-1.0, 1.0, 2.0, 1]))


def test_tiles_that_agree_leave_no_seam(volume):
    base = np.full(volume.shape, 3.0, np.float32)
    everywhere = (slice(0, volume.shape[0]), slice(0, volume.shape[1]), slice(0, volume.shape[2]))
    frames = [volume.frame((at, 35, 30), 1.0, 32) for at in (20, 36, 44)]
    logit, region = merge_tiles(volume, (base, everywhere), [(f, torch.full((32, 32, 32), 3.0)) for f in frames])
    assert region == everywhere
    assert np.allclose(logit, 3.0, atol=1e-4)


def test_a_tile_counts_in_its_middle_and_the_base_outside_of_tiles(volume):
    base = np.full(volume.shape, -2.0, np.float32)
    everywhere = (slice(0, volume.shape[0]), slice(0, volume.shape[1]), slice(0, volume.shape[2]))
    frame = volume.frame((40, 35, 30), 1.0, 32)
    logit, _ = merge_tiles(volume, (base, everywhere), [(frame, torch.full((32, 32, 32), 4.0))])
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
    enforce_clicks((logit, region), (inside, outside, followed, elsewhere), spacing)
    assert logit[10, 8, 8] > 0 > logit[2, 8, 8]
    changed = np.argwhere(logit != before) + np.array([10, 0, 0])
    away = [np.linalg.norm((changed - click.ijk) * spacing, axis=1) for click in (inside, outside)]
    assert 2 * 27 > len(changed) > 2
    assert np.minimum(*away).max() <= ENFORCED_MM


def test_two_neighbouring_clicks_share_the_voxels_between_them():
    logit = np.zeros((9, 9, 9), np.float32)
    clicks = [Click((4, 4, 4)), Click((5, 4, 4), positive=False)]
    enforce_clicks((logit, (slice(0, 9),) * 3), clicks, np.ones(3))
    assert logit[4, 4, 4] > 0 >= logit[5, 4, 4]


def test_overlap_of_two_regions_is_the_same_voxels():
    first = (slice(10, 20), slice(0, 5), slice(3, 9))
    second = (slice(15, 30), slice(0, 5), slice(0, 4))
    in_first, in_second = overlap(first, second)
    assert in_first == (slice(5, 10), slice(0, 5), slice(0, 1))
    assert in_second == (slice(0, 5), slice(0, 5), slice(3, 4))
    apart = overlap(first, (slice(25, 30), slice(0, 5), slice(0, 4)))[0]
    assert np.zeros((10, 5, 6))[apart].size == 0
