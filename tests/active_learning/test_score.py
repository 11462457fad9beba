"""Looking at a volume that nobody has clicked in."""

from __future__ import annotations

import numpy as np
import pytest

from sam3d_label import Segmenter, Volume
from sam3d_label.active_learning.score import farthest_vector, likely_target, score_volume
from tests.helpers.networks import bright

CLICKS = ["positive_click", "negative_click", "mask", "no_click"]


@pytest.fixture
def two_blocks():
    """A large bright block and a small one."""
    array = np.full((40, 36, 30), 50.0)
    array[5:17, 6:18, 8:20] = array[30:34, 28:32, 22:26] = 200
    return array


def test_the_model_clicks_in_the_middle_of_the_largest_target(small_weights, two_blocks):
    click = likely_target(bright(small_weights, two_blocks, CLICKS))
    assert click.positive
    assert np.abs(np.array(click.ijk) - [10.5, 11.5, 13.5]).max() <= 1


def test_weights_that_need_a_click_get_one_in_the_middle(small_weights, two_blocks):
    assert likely_target(bright(small_weights, two_blocks, ["positive_click"])).ijk == (20, 18, 15)


def test_a_model_without_doubt_has_none(small_weights, two_blocks):
    """It sees what is bright wherever one clicks."""
    found = score_volume(bright(small_weights, two_blocks, CLICKS))
    assert found.doubt == pytest.approx(0, abs=1e-3)
    assert found.vector.shape == (2,)


def test_the_vector_is_the_volumes(small_weights, two_blocks):
    segmenter = Segmenter(Volume(two_blocks, np.eye(4)), small_weights)
    vector = segmenter.feature_vector()
    assert vector.shape == (2 * segmenter.weights.model.config.neck,)
    assert np.isfinite(vector).all()
    assert np.array_equal(vector, segmenter.feature_vector())
    assert 0 <= score_volume(segmenter).doubt <= 1


def test_the_farthest_from_what_is_known():
    vectors = {"near": np.array([0.0, 0.0]), "far": np.array([3.0, 0.0]), "farther": np.array([-5.0, 0.0])}
    assert farthest_vector(vectors, [np.zeros(2)])[0] == "farther"
    assert farthest_vector(vectors, [np.zeros(2), np.array([-5.0, 0.0])])[0] == "far"
    assert farthest_vector(vectors, [])[0] == "near", "the most typical, to begin with"
