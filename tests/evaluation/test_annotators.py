"""The simulated annotators, on errors small enough to see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from sam3d_label.evaluation.annotators import (
    ANNOTATORS,
    FLIPPED_SHARE,
    JITTER_MM,
    POSITIVE_ONLY,
)
from sam3d_label.segmentation.prompts import Click

SPACING = (1.0, 1.0, 1.0)


def boxes(shape: tuple[int, ...], *corners: tuple[int, ...]) -> np.ndarray:
    """A mask of boxes (i0, i1, j0, j1, k0, k1), upper corners exclusive."""
    mask = np.zeros(shape, bool)
    for i0, i1, j0, j1, k0, k1 in corners:
        mask[i0:i1, j0:j1, k0:k1] = True
    return mask


def click(
    name: str,
    truth: np.ndarray,
    mask: np.ndarray,
    given: list[Click] | None = None,
    seed: int = 0,
    spacing=SPACING,
):
    return ANNOTATORS[name](truth, mask, given or [], np.random.default_rng(seed), spacing)


@pytest.mark.parametrize("name", ANNOTATORS)
def test_first_click_is_positive_and_inside_the_volume(name):
    truth = boxes((20, 18, 9), (4, 13, 5, 12, 2, 7))
    first = click(name, truth, np.zeros_like(truth))
    assert first.positive
    assert all(0 <= at < size for at, size in zip(first.ijk, truth.shape, strict=True))


@pytest.mark.parametrize("name", sorted(set(ANNOTATORS) - POSITIVE_ONLY))
def test_nothing_to_correct_is_no_click(name):
    truth = boxes((8, 8, 8), (2, 5, 2, 5, 2, 5))
    assert click(name, truth, truth.copy()) is None


@pytest.mark.parametrize("name", ANNOTATORS)
def test_a_seed_fixes_the_click(name):
    truth = boxes((20, 20, 20), (3, 15, 4, 16, 5, 17))
    mask = boxes((20, 20, 20), (3, 9, 4, 16, 5, 17))
    assert click(name, truth, mask, seed=5) == click(name, truth, mask, seed=5)


def test_error_centre_takes_the_middle_of_what_was_missed():
    truth = boxes((15, 15, 15), (3, 10, 4, 11, 5, 12))
    assert click("error_centre", truth, np.zeros_like(truth)) == Click((6, 7, 8))


def test_error_centre_takes_the_larger_error_even_if_it_is_thinner():
    truth = boxes((20, 20, 20), (0, 5, 0, 5, 0, 5))
    added = boxes((20, 20, 20), (10, 20, 0, 20, 18, 19))
    assert np.count_nonzero(added) > np.count_nonzero(truth)
    chosen = click("error_centre", truth, added)
    assert not chosen.positive
    assert added[chosen.ijk]


def test_error_centre_counts_the_volume_border_as_outside():
    truth = np.ones((5, 5, 5), bool)
    assert click("error_centre", truth, np.zeros_like(truth)) == Click((2, 2, 2))


def test_error_centre_breaks_ties_by_index():
    truth = boxes((12, 4, 4), (8, 11, 0, 3, 0, 3), (1, 4, 0, 3, 0, 3))
    assert click("error_centre", truth, np.zeros_like(truth)).ijk == (2, 1, 1)


def test_error_centre_never_clicks_a_voxel_twice():
    truth = boxes((6, 6, 6), (1, 3, 1, 3, 1, 3))
    given: list[Click] = []
    while (next_click := click("error_centre", truth, np.zeros_like(truth), given)) is not None:
        given.append(next_click)
    assert sorted(each.ijk for each in given) == [tuple(ijk) for ijk in np.argwhere(truth)]


def test_error_centre_turns_to_the_other_error_when_one_is_all_clicked():
    truth = boxes((6, 6, 6), (0, 2, 0, 1, 0, 1))
    mask = boxes((6, 6, 6), (4, 5, 4, 5, 4, 5))
    given = [Click((0, 0, 0)), Click((1, 0, 0))]
    assert click("error_centre", truth, mask, given) == Click((4, 4, 4), positive=False)


def test_error_centre_equals_the_rule_on_the_whole_volume():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        noise = ndimage.gaussian_filter(rng.normal(size=(2, 17, 14, 11)), (0, 2, 2, 2))
        truth, mask = noise > 0.02
        taken = [Click((i, 5, 5)) for i in range(17)]
        errors = [truth & ~mask, mask & ~truth]
        error = max(errors, key=np.count_nonzero)
        depth = ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1, 1:-1]
        for each in taken:
            depth[each.ijk] = 0
        i, j, k = (int(at) for at in np.unravel_index(np.argmax(depth), depth.shape))
        assert click("error_centre", truth, mask, taken) == Click((i, j, k), error is errors[0])


def test_largest_component_joins_across_corners():
    truth = boxes((20, 20, 20), (2, 5, 2, 5, 2, 5), (5, 8, 5, 8, 5, 8), (12, 15, 12, 16, 12, 16))
    chosen = click("largest_component_centre", truth, np.zeros_like(truth))
    assert chosen in (Click((3, 3, 3)), Click((6, 6, 6)))


def test_largest_component_takes_its_sign_from_the_truth():
    truth = boxes((20, 20, 20), (2, 5, 2, 5, 2, 5))
    mask = boxes((20, 20, 20), (10, 17, 10, 17, 10, 17))
    assert click("largest_component_centre", truth, mask) == Click((13, 13, 13), positive=False)


def test_largest_component_breaks_ties_equally_under_every_seed():
    truth = boxes((10, 10, 10), (2, 8, 2, 8, 2, 8))
    chosen = {click("largest_component_centre", truth, np.zeros_like(truth), seed=seed) for seed in range(5)}
    assert len(chosen) == 1


def test_random_foreground_covers_the_target_and_nothing_else():
    truth = boxes((9, 9, 9), (1, 3, 1, 3, 1, 3))
    rng = np.random.default_rng(0)
    drawn = [ANNOTATORS["random_foreground"](truth, truth, [], rng, SPACING) for _ in range(200)]
    assert {each.ijk for each in drawn} == {tuple(ijk) for ijk in np.argwhere(truth)}
    assert all(each.positive for each in drawn)


def test_random_foreground_of_nothing_is_no_click():
    nothing = np.zeros((3, 3, 3), bool)
    assert click("random_foreground", nothing, nothing) is None


def test_jitter_is_in_millimetres():
    truth = boxes((61, 41, 21), (30, 31, 20, 21, 10, 11))
    spacing = (0.5, 1.0, 3.0)
    nothing = np.zeros_like(truth)
    moved = [click("jittered", truth, nothing, seed=seed, spacing=spacing).ijk for seed in range(600)]
    spread = np.std(np.array(moved) * spacing, axis=0)
    assert spread == pytest.approx([JITTER_MM] * 3, rel=0.12)


def test_jitter_flips_some_signs_but_not_the_first():
    truth = boxes((30, 30, 30), (5, 25, 5, 25, 5, 25))
    nothing = np.zeros_like(truth)
    firsts = [click("jittered", truth, nothing, seed=seed).positive for seed in range(200)]
    later = [click("jittered", truth, nothing, [Click((0, 0, 0))], seed=seed).positive for seed in range(1000)]
    assert all(firsts)
    assert 1 - np.mean(later) == pytest.approx(FLIPPED_SHARE, abs=0.025)


def test_jitter_stays_in_the_volume_and_off_clicked_voxels():
    truth = np.ones((2, 2, 1), bool)
    given = [Click((0, 0, 0)), Click((0, 1, 0)), Click((1, 0, 0))]
    for seed in range(50):
        assert click("jittered", truth, np.zeros_like(truth), given, seed=seed).ijk == (1, 1, 0)
