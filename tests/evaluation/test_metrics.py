"""Metrics against hand-made cases and MONAI's own class."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from sam3d_label.evaluation import metrics
from sam3d_label.segmentation.prompts import Click


def cube(shape: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[(slice(start, stop),) * 3] = True
    return mask


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy")
@pytest.mark.parametrize("seed", range(4))
def test_nsd_is_monais_surface_dice_on_the_whole_volume(seed):
    from monai.metrics import SurfaceDiceMetric

    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(30, 28, 22)), 3)
    mask, truth = noise > 0.04, np.roll(noise, 2, axis=0) > 0.05
    spacing = (0.8, 1.3, 3.0)
    expected = []
    for tolerance in (1.0, 2.0, 5.0):
        metric = SurfaceDiceMetric([tolerance], include_background=True, use_subvoxels=True)
        value = metric(torch.from_numpy(mask)[None, None], torch.from_numpy(truth)[None, None], spacing=list(spacing))
        expected.append(value.item())
    assert 0 < expected[0] < 1
    assert metrics.nsd(mask, truth, spacing, (1.0, 2.0, 5.0)) == pytest.approx(expected, abs=1e-5)


def test_nsd_knows_millimetres():
    mask, truth = cube((30, 30, 30), 5, 15), cube((30, 30, 30), 5, 15)
    truth = np.roll(truth, 3, axis=2)
    assert metrics.nsd(mask, truth, (1, 1, 0.5)) == pytest.approx((1, 1))
    assert metrics.nsd(mask, truth, (1, 1, 4))[1] < 0.9


def test_nsd_of_empty_masks():
    nothing, something = np.zeros((5, 5, 5), bool), cube((5, 5, 5), 1, 3)
    assert metrics.nsd(nothing, nothing, (1, 1, 1)) == (1, 1)
    assert metrics.nsd(nothing, something, (1, 1, 1)) == (0, 0)
    assert metrics.nsd(something, nothing, (1, 1, 1)) == (0, 0)


@pytest.mark.parametrize(
    ("dices", "cap", "expected"),
    [
        ([0.5, 0.85, 0.9], 20, (2, False)),
        ([0.9], 20, (1, False)),
        ([0.5, 0.84], 20, (20, True)),
        ([0.1, 0.2, 0.9], 2, (2, True)),
        ([0.9, 0.1], 20, (1, False)),
        ([], 20, (20, True)),
    ],
)
def test_noc(dices, cap, expected):
    assert metrics.noc(dices, 0.85, cap) == expected


def test_auc_is_the_trapezoid_over_clicks_one_to_five():
    assert metrics.auc([0.0, 0.25, 0.5, 0.75, 1.0, 0.0]) == pytest.approx(0.5)
    assert metrics.auc([0.8] * 5) == pytest.approx(0.8)
    assert metrics.auc([1, 0, 0, 0, 0]) == pytest.approx(0.5 / 4)
    assert metrics.auc([0.8] * 4) is None


def test_lowered_counts_only_clear_losses():
    assert metrics.count_lowered([0.5, 0.495, 0.6, 0.58, 0.58]) == 1
    assert metrics.count_lowered([0.5]) == 0


def test_honoured_looks_at_both_sides():
    mask = cube((5, 5, 5), 1, 3)
    clicks = [Click((1, 1, 1)), Click((4, 4, 4)), Click((0, 0, 0), False), Click((2, 2, 2), False)]
    assert metrics.count_honoured(mask, clicks) == 2


def test_bootstrap_interval():
    values = np.random.default_rng(1).normal(0.8, 0.1, size=60)
    low, high = metrics.bootstrap_interval(values.tolist())
    half = 1.96 * values.std() / math.sqrt(60)
    assert low == pytest.approx(values.mean() - half, abs=0.005)
    assert high == pytest.approx(values.mean() + half, abs=0.005)
    assert metrics.bootstrap_interval(values.tolist()) == (low, high)
    assert metrics.bootstrap_interval([0.5]) == (0.5, 0.5)
