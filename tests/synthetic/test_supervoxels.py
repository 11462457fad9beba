"""Targets that nobody drew: where they lie and what they look like."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from sam3d_label.image.intensity import Percentile
from sam3d_label.image.volume import Volume
from sam3d_label.synthetic.supervoxels import FEWEST_VOXELS, LARGEST_SHARE, TAKEN_SHARE, find_supervoxels

SHAPE = (64, 60, 40)
CENTRES = ((16, 16, 20), (16, 44, 20), (46, 30, 20))


@pytest.fixture(scope="module")
def balls() -> tuple[np.ndarray, Volume]:
    """Three bright balls in the dark, and which voxel belongs to which."""
    grid = np.indices(SHAPE)
    inside = [np.linalg.norm(grid - np.reshape(centre, (3, 1, 1, 1)), axis=0) < 9 for centre in CENTRES]
    which = sum(number * ball for number, ball in enumerate(inside, start=1))
    noise = np.random.default_rng(0).normal(0, 2, SHAPE)
    return which, Volume((100.0 * (which > 0) + noise).astype(np.float32), np.eye(4))


def pieces(volume: Volume, taken: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    taken = np.zeros(volume.shape, bool) if taken is None else taken
    return find_supervoxels(volume, Percentile().fit(volume.array), taken, np.random.default_rng(seed))


def of_ball(label: np.ndarray, ball: np.ndarray) -> np.ndarray:
    """The pieces that lie mostly in a ball."""
    counts = np.bincount(label[ball], minlength=label.max() + 1)
    return np.flatnonzero(counts[1:] > 0.5 * np.bincount(label.ravel())[1:]) + 1


@pytest.mark.parametrize("seed", range(3))
def test_what_hangs_together_is_a_piece_and_what_is_apart_is_not_joined(balls, seed):
    which, volume = balls
    label = pieces(volume, seed=seed)
    found = [set(of_ball(label, which == number).tolist()) for number in (1, 2, 3)]
    assert all(found), "each ball has a piece"
    assert not set.intersection(*found)


def test_pieces_are_neither_specks_nor_the_background(balls):
    _, volume = balls
    for seed in range(3):
        label = pieces(volume, seed=seed)
        sizes = np.bincount(label.ravel())[1:]
        assert (sizes >= FEWEST_VOXELS).all()
        assert (sizes <= LARGEST_SHARE * label.size).all()
        assert all(ndimage.label(label == number)[1] == 1 for number in range(1, label.max() + 1))


def test_a_known_target_is_not_given_a_second_answer(balls):
    which, volume = balls
    taken = which == 1
    label = pieces(volume, taken)
    assert not of_ball(label, taken).size
    for number in range(1, label.max() + 1):
        assert taken[label == number].mean() <= TAKEN_SHARE


def test_chance_alone_decides(balls):
    _, volume = balls
    assert np.array_equal(pieces(volume, seed=4), pieces(volume, seed=4))
    different = {pieces(volume, seed=seed).tobytes() for seed in range(4)}
    assert len(different) > 1


def test_layers_are_no_pieces():
    """A thin bright plate fills many voxels and is nothing to click on."""
    array = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    array[:, :, 18:22] += 100
    label = pieces(Volume(array, np.eye(4)))
    assert not label[:, :, 19:21].any()
