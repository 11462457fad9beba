import numpy as np

from sam3d_label.image.region import around, empty, intersection, relative, shape_of, union, whole

FIRST = (slice(10, 20), slice(0, 5), slice(3, 9))


def test_the_intersection_is_the_voxels_of_both():
    assert intersection(FIRST, (slice(15, 30), slice(0, 5), slice(0, 4))) == (slice(15, 20), slice(0, 5), slice(3, 4))
    assert intersection(FIRST, (slice(25, 30), slice(0, 5), slice(0, 4))) is None


def test_the_union_has_all_of_both():
    assert union([FIRST, (slice(2, 4), slice(1, 2), slice(5, 12))]) == (slice(2, 20), slice(0, 5), slice(3, 12))
    assert union([]) is None


def test_around_a_voxel_at_a_corner_stays_inside_the_grid():
    assert around((0, 5, 9), np.array([2, 1, 3]), (10, 10, 10)) == (slice(0, 3), slice(4, 7), slice(6, 10))


def test_a_relative_region_shows_the_same_voxels():
    array = np.arange(20 * 5 * 9).reshape(20, 5, 9)
    inner = (slice(12, 14), slice(1, 5), slice(4, 9))
    assert np.array_equal(array[FIRST][relative(inner, FIRST)], array[inner])


def test_shapes():
    assert shape_of(FIRST) == (10, 5, 6)
    assert shape_of(whole((4, 5, 6))) == (4, 5, 6)
    assert shape_of(empty(FIRST)) == (0, 0, 0)
