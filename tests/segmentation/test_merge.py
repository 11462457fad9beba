import numpy as np
import pytest
import torch

from sam3d_label.image.region import shape_of
from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.merge import ENFORCED_MM, Layer, TargetLogits, enforce_clicks
from sam3d_label.segmentation.prompts import Click


@pytest.fixture
def volume():
    return Volume(np.zeros((80, 70, 60)), np.diag([-1.0, 1.0, 2.0, 1]))


def cube(volume: Volume, at: tuple[int, int, int], value: float, spacing: float = 1.0, size: int = 32) -> Layer:
    return volume.frame(at, spacing, size), torch.full((size, size, size), value)


def test_tiles_that_agree_leave_no_seam(volume):
    tiles = [cube(volume, (at, 35, 30), 3.0) for at in (20, 36, 44)]
    logit, region = TargetLogits(volume, cube(volume, (40, 35, 30), 3.0, spacing=4.0), tuple(tiles)).read()
    assert region == (slice(0, 80), slice(0, 70), slice(0, 60))
    assert np.allclose(logit, 3.0, atol=1e-4)


def test_a_tile_counts_in_its_middle_and_the_base_outside_of_tiles(volume):
    base, tile = cube(volume, (40, 35, 30), -2.0, spacing=4.0), cube(volume, (40, 35, 30), 4.0)
    logit, _ = TargetLogits(volume, base, (tile,)).read()
    assert logit[40, 35, 30] == pytest.approx(4.0, abs=0.2)
    assert logit[5, 5, 5] == -2.0
    along = logit[10:70, 35, 30]
    assert np.abs(np.diff(along)).max() < 3.5, "a step as high as the difference is a seam"


def test_without_a_base_what_no_tile_shows_is_0(volume):
    logit, region = TargetLogits(volume, None, (cube(volume, (40, 35, 30), 4.0),)).read()
    assert logit.shape == volume.shape == shape_of(region)
    assert logit[40, 35, 30] == pytest.approx(4.0)
    assert logit[2, 2, 2] == 0


@pytest.mark.parametrize("thickness", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("spacing", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("tiled", [False, True])
def test_the_region_of_the_mask_has_all_of_it(thickness, spacing, tiled):
    volume = Volume(
        np.zeros((40, 50, 30)), np.array([[0, 1.1, 0, 3], [0.9, 0, 0, 5], [0, 0, -thickness, 2], [0, 0, 0, 1]])
    )
    rng = np.random.default_rng(0)
    layers = []
    for at in ((20, 25, 15), (30, 30, 10)):
        logit = torch.full((24, 24, 24), -3.0)
        first = rng.integers(0, 16, 3)
        logit[tuple(slice(f, f + 8) for f in first)] = torch.from_numpy(rng.normal(1, 3, (8, 8, 8)).astype(np.float32))
        layers.append((volume.frame(at, spacing, 24), logit))
    clicks = (Click((1, 2, 3)), Click((20, 25, 15)), Click((22, 25, 15), positive=False))
    target = TargetLogits(volume, layers[0], tuple(layers[1:]) if tiled else (), clicks)
    everything, region = target.read()
    mask, found = np.zeros(volume.shape, bool), np.zeros(volume.shape, bool)
    mask[region] = everything > 0
    near_the_mask, within = target.read(target.mask_region())
    found[within] = near_the_mask > 0
    assert mask.any()
    assert np.array_equal(mask, found)


def test_an_empty_mask_has_no_region(volume):
    assert TargetLogits(volume, cube(volume, (40, 35, 30), -1.0)).mask_region() is None


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
