"""A phantom as a PET scanner shows it."""

from __future__ import annotations

import numpy as np

from sam3d_label.synthetic import make_phantom
from sam3d_label.synthetic.pet import pet_image


def test_lesions_are_hot_tissue_is_not_and_air_has_nothing():
    phantom = make_phantom(np.random.default_rng(3), (64, 64, 24), (2.0, 2.0, 4.0), "ct")
    image = pet_image(np.random.default_rng(0), phantom)
    assert image.shape == phantom.image.shape
    assert image.dtype == np.float32
    assert image.min() >= 0
    air = phantom.image < -900
    tissue = ~air & (phantom.label == 0)
    assert image[phantom.label > 0].mean() > 2 * image[tissue].mean()
    assert image[air].mean() < image[tissue].mean()


def test_it_depends_on_the_random_state_only():
    phantom = make_phantom(np.random.default_rng(3), (32, 32, 16), (2.0, 2.0, 4.0), "ct")
    first, second = (pet_image(np.random.default_rng(1), phantom) for _ in range(2))
    np.testing.assert_array_equal(first, second)
