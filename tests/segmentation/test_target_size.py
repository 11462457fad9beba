"""The size of a target is estimated from the image around a click, and from clicks outside."""

import numpy as np
import pytest
import torch
from monai.networks.layers import GaussianFilter

from sam3d_label.segmentation.target_size import directions, size_by_appearance, size_by_clicks, smooth

SIZE = 64


@pytest.mark.parametrize("radius", [3, 5, 8])
@pytest.mark.parametrize("contrast", [1.0, -1.5])
def test_a_ball_looks_as_large_as_it_is(radius, contrast):
    middle = np.array([30.0, 36.0, 28.0])
    away = np.linalg.norm(np.indices((SIZE,) * 3).T - middle, axis=-1).T
    noise = np.random.default_rng(0).normal(0, 0.3, (SIZE,) * 3)
    image = torch.from_numpy(contrast * (away <= radius) + noise).float()
    assert 2 * radius <= float(size_by_appearance(image, middle)) <= 5 * radius


def test_a_ball_clicked_near_its_border_does_not_look_smaller_than_it_is():
    middle = np.array([30.0, 36.0, 28.0])
    away = np.linalg.norm(np.indices((SIZE,) * 3).T - middle, axis=-1).T
    image = torch.from_numpy(away <= 8).float()
    assert float(size_by_appearance(image, middle + np.array([0, 6, 0]))) >= 16


def test_where_everything_looks_similar_a_target_may_be_larger_than_half_of_the_crop():
    assert float(size_by_appearance(torch.zeros((SIZE,) * 3), np.array([32.0, 32.0, 32.0]))) > SIZE / 2


def test_what_lies_in_a_few_directions_only_does_not_count():
    image = torch.zeros((SIZE,) * 3)
    image[:, 36:38, 30:34] = 2.0
    assert float(size_by_appearance(image, np.array([32.0, 32.0, 32.0]))) > SIZE / 2


def test_a_click_at_the_border_of_the_crop_is_no_error():
    assert float(size_by_appearance(torch.zeros((SIZE,) * 3), np.array([0.0, 63.4, -0.4]))) > 0


def test_the_nearest_click_outside_bounds_the_size_in_mm():
    spacing, middle = np.array([1.0, 1.0, 3.0]), np.array([[10, 10, 10]])
    assert size_by_clicks(middle, np.array([[10, 18, 10], [10, 10, 12]]), spacing) == 18
    assert size_by_clicks(middle, np.zeros((0, 3)), spacing) == np.inf


def test_a_click_outside_that_is_nearer_than_one_inside_bounds_nothing():
    inside, outside = np.array([[10, 10, 10], [10, 16, 10]]), np.array([[10, 10, 14], [18, 10, 10]])
    assert size_by_clicks(inside, outside, np.ones(3)) == 24
    assert size_by_clicks(inside, outside[:1], np.ones(3)) == np.inf


def test_directions_are_spread_evenly():
    found = directions()
    assert torch.allclose(found.norm(dim=1), torch.ones(len(found)), atol=1e-5)
    assert found.mean(0).abs().max() < 0.01


def test_the_smoothed_image_is_that_of_monai():
    image = torch.randn(12, 14, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(smooth(image), GaussianFilter(3, 1.0)(image[None, None])[0, 0], atol=1e-6)
