import functools

import numpy as np
import pytest
from scipy import ndimage

from sam3d_label.synthetic import insert_lesions, make_phantom
from sam3d_label.synthetic.lesion_insertion import FEWEST_VOXELS, LESIONS

SPACING = (1.0, 1.0, 2.0)


@functools.cache
def made(modality):
    """A real image is not at hand everywhere: a phantom's stands in for it."""
    return make_phantom(np.random.default_rng(7), (96, 96, 40), SPACING, modality)


def planted(modality, seed=0, taken=None):
    """Image, image with lesions, label, and what was taken."""
    phantom = made(modality)
    taken = phantom.label > 0 if taken is None else taken
    return phantom.image, *insert_lesions(np.random.default_rng(seed), phantom.image, SPACING, modality, taken), taken


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_the_image_changes_in_the_lesions_and_hardly_elsewhere(modality):
    before, after, label, _ = planted(modality)
    assert LESIONS[0] <= label.max() <= LESIONS[1]
    changed = np.abs(after - before)
    beyond = ndimage.distance_transform_edt(label == 0, sampling=SPACING) > 10
    assert (changed[beyond] > 1e-3 * np.ptp(before)).mean() < 0.001
    spread = before[label > 0].std()
    for number in range(1, label.max() + 1):
        assert changed[label == number].mean() > 0.1 * spread


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_lesions_are_small_whole_and_off_what_is_taken(modality):
    _, _, label, taken = planted(modality)
    assert not label[taken].any()
    for number in range(1, label.max() + 1):
        lesion = label == number
        assert lesion.sum() >= FEWEST_VOXELS
        assert ndimage.label(lesion)[1] == 1
        where = np.argwhere(lesion)
        assert (np.ptp(where, axis=0) * SPACING).max() < 80


def test_the_same_seed_plants_the_same_lesions_and_another_others():
    first, again, other = (planted("mr", seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_where_everything_is_taken_nothing_is_planted():
    before, after, label, _ = planted("ct", taken=np.ones((96, 96, 40), bool))
    assert not label.any()
    np.testing.assert_allclose(after, before, atol=1e-3)
