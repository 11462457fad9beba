"""Clicks and sessions of the comparison of precisions."""

from __future__ import annotations

import numpy as np
import pytest
from precision import next_click, session

from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.precision import PRECISION
from sam3d_label.weights import Weights


@pytest.fixture
def volume() -> Volume:
    return Volume(np.random.default_rng(0).gamma(3, 50, (40, 36, 14)), np.diag([1, 1, 2.5, 1]))


def test_a_click_is_in_the_largest_error(volume: Volume) -> None:
    truth = np.zeros(volume.shape, bool)
    truth[5:14, 5:14, 3:9] = True
    first = next_click(np.zeros_like(truth), truth, volume, [])
    assert first is not None
    assert first.positive
    assert truth[first.ijk]
    mask = truth.copy()
    mask[20:36, 5:30, 3:9] = True
    second = next_click(mask, truth, volume, [first])
    assert second is not None
    assert not second.positive
    assert next_click(truth, truth, volume, []) is None


def test_both_masks_of_a_session_have_the_same_clicks(
    volume: Volume, small_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PRECISION, "auto")  # restored after the session has changed it
    truth = np.zeros(volume.shape, bool)
    truth[5:14, 5:14, 3:9] = True
    found = list(session(volume, truth, small_weights, 2))
    assert len(found) == 2
    assert all(0.5 < each.between <= 1 for each in found)
