"""The size of a target is told from the image around a click, and from clicks outside."""

import numpy as np
import pytest
import torch

from sam3d_label.sizing import directions, size_by_clicks, size_by_looks

SIZE = 64


@pytest.mark.parametrize("radius", [3, 5, 8])
@pytest.mark.parametrize("contrast", [1.0, -1.5])
def test_a_ball_looks_as_large_as_it_is(radius, contrast):
    middle = np.array([30.0, 36.0, 28.0])
    away = np.linalg.norm(np.indices((SIZE,) * 3).T - middle, axis=-1).T
    noise = np.random.default_rng(0).normal(0, 0.3, (SIZE,) * 3)
    image = torch.from_numpy(contrast * (away <= radius) + noise).float()
    assert 2 * radius <= float(size_by_looks(image, middle)) <= 4.5 * radius


def test_where_everything_looks_alike_a_target_may_be_larger_than_half_of_the_crop():
    assert float(size_by_looks(torch.zeros((SIZE,) * 3), np.array([32.0, 32.0, 32.0]))) > SIZE / 2


def test_what_lies_in_a_few_directions_only_does_not_count():
    image = torch.zeros((SIZE,) * 3)
    image[:, 36:38, 30:34] = 2.0
    assert float(size_by_looks(image, np.array([32.0, 32.0, 32.0]))) > SIZE / 2


def test_a_click_at_the_border_of_the_crop_is_no_error():
    assert float(size_by_looks(torch.zeros((SIZE,) * 3), np.array([0.0, 63.4, -0.4]))) > 0


def test_the_nearest_click_outside_bounds_the_size_in_mm():
    spacing = np.array([1.0, 1.0, 3.0])
    assert size_by_clicks((10, 10, 10), np.array([[10, 18, 10], [10, 10, 12]]), spacing) == 12
    assert size_by_clicks((10, 10, 10), np.zeros((0, 3)), spacing) == np.inf


def test_directions_are_spread_evenly():
    found = directions()
    assert torch.allclose(found.norm(dim=1), torch.ones(len(found)), atol=1e-5)
    assert found.mean(0).abs().max() < 0.01
