"""Boxes, components, depths and overlap, on masks small enough to see and on random ones."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from sam3d_label.masks import CORNERS, bounding_box, corners, deepest_voxel, depth, dice, largest_component

ROOT = Path(__file__).parents[1]


def boxes(shape: tuple[int, ...], *spans: tuple[int, ...]) -> np.ndarray:
    """A mask of boxes (i0, i1, j0, j1, k0, k1), upper ends exclusive."""
    mask = np.zeros(shape, bool)
    for i0, i1, j0, j1, k0, k1 in spans:
        mask[i0:i1, j0:j1, k0:k1] = True
    return mask


def blobs(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(17, 14, 11))
    return ndimage.gaussian_filter(noise, 1) > 0.15


def test_a_bounding_box_is_that_of_scipy() -> None:
    for seed in range(5):
        mask = blobs(seed) & boxes((17, 14, 11), (2, 12, 3, 10, 1, 9))
        assert bounding_box(mask) == ndimage.find_objects(mask.astype(int))[0]
        flat = mask.any(axis=1).astype(np.uint8)
        assert bounding_box(flat) == ndimage.find_objects(flat)[0]


def test_an_empty_mask_has_no_box_no_component_and_no_deepest_voxel() -> None:
    empty = np.zeros((3, 4, 5), bool)
    assert bounding_box(empty) is None
    assert corners(empty) is None
    assert deepest_voxel(empty) is None
    assert not largest_component(empty).any()


def test_the_corners_are_inside_the_box() -> None:
    found = corners(boxes((9, 8, 7), (2, 4, 3, 8, 0, 1), (5, 6, 4, 5, 2, 3)))
    assert found is not None
    assert [corner.tolist() for corner in found] == [[2, 3, 0], [5, 7, 2]]


def test_the_largest_component_depends_on_what_connects_and_on_the_weight() -> None:
    pair, cube = boxes((9, 9, 9), (0, 2, 0, 2, 0, 2), (2, 3, 2, 4, 2, 4)), boxes((9, 9, 9), (5, 8, 5, 8, 5, 6))
    assert np.array_equal(largest_component(pair | cube), cube)
    assert np.array_equal(largest_component(pair | cube, CORNERS), pair)
    weight = np.where(cube, 1.0, 0.9)
    assert np.array_equal(largest_component(pair | cube, CORNERS, weight), pair)
    assert np.array_equal(largest_component(pair | cube, CORNERS, weight - 0.5 * pair), cube)


def test_of_equally_large_components_the_first_is_taken() -> None:
    first, second = boxes((9, 9, 9), (1, 3, 1, 3, 1, 3)), boxes((9, 9, 9), (5, 7, 1, 3, 1, 3))
    assert np.array_equal(largest_component(first | second), first)


@pytest.mark.parametrize("spacing", [None, (0.7, 1.1, 5.0)])
def test_the_deepest_voxel_is_that_of_the_whole_padded_array(spacing: tuple[float, ...] | None) -> None:
    for seed in range(5):
        mask = blobs(seed)
        whole = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
        assert np.array_equal(depth(mask, spacing), whole)
        assert deepest_voxel(mask, spacing) == np.unravel_index(whole.argmax(), whole.shape)


def test_voxels_that_are_excluded_are_not_the_deepest() -> None:
    mask = boxes((6, 6, 6), (2, 4, 2, 3, 2, 3))
    found: list[tuple[int, int, int]] = []
    while (voxel := deepest_voxel(mask, without=[(0, 0, 0), *found])) is not None:
        found.append(voxel)
    assert found == [(2, 2, 2), (3, 2, 2)]


def test_dice() -> None:
    one, other = boxes((9, 9, 9), (1, 3) * 3), boxes((9, 9, 9), (2, 4) * 3)
    assert dice(one, one) == 1
    assert dice(one, other) == pytest.approx(2 / 16)
    assert dice(one, np.zeros_like(one)) == 0
    assert dice(np.zeros_like(one), np.zeros_like(one)) == 1


def test_each_has_one_implementation() -> None:
    """Names that this module defines are defined nowhere else as functions of a module."""
    names, found = {"bounding_box", "largest_component", "deepest_voxel", "dice"}, set()
    for folder in ("sam3d_label", "apps", "benchmarks", "recipes", "scripts", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and node.name.removeprefix("_") in names:
                    found.add(path.relative_to(ROOT).as_posix())
    assert found == {"sam3d_label/masks.py"}
