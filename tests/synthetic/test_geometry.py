import numpy as np
import pytest
from numpy.testing import assert_allclose

from sam3d_label.synthetic.geometry import Grid, Shape, Structure, ramp, smooth_noise, union

GRID = Grid.centred((60, 50, 40), (1.0, 1.2, 1.5))


def ball(radius: float, bend: float = 0.0) -> Shape:
    return Shape(np.zeros(3), np.full(3, radius), np.eye(3), bend=bend, roughness=0.0)


def test_grid_is_centred_and_measured_in_mm() -> None:
    assert GRID.shape == (60, 50, 40)
    assert_allclose(GRID.extent, (60, 60, 60))
    assert_allclose(GRID.position((0, 0, 0)), (-29.5, -29.4, -29.25))
    assert_allclose([axis.mean() for axis in GRID.axes], 0, atol=1e-5)


def test_box_of_a_grid_keeps_positions() -> None:
    box = GRID.box(np.array([5.0, 0.0, -8.0]), 6.0)
    cropped = GRID.crop(box)
    for axis, middle in zip(cropped.axes, (5.0, 0.0, -8.0), strict=True):
        assert axis.min() >= middle - 6
        assert axis.max() <= middle + 6
    assert_allclose(cropped.position((0, 0, 0)), GRID.position([part.start for part in box]))


def test_depth_of_a_ball_is_the_distance_to_its_border() -> None:
    depth = ball(15.0).depth(np.random.default_rng(0), GRID)
    x, y, z = np.meshgrid(*GRID.axes, indexing="ij")
    assert_allclose(depth, 15 - np.sqrt(x**2 + y**2 + z**2), atol=0.01)


def test_bend_moves_the_ends_and_leaves_the_middle() -> None:
    grid = Grid.centred((61, 61, 61), (1.0, 1.0, 1.0))
    bent = Shape(np.zeros(3), np.array([25.0, 4.0, 4.0]), np.eye(3), bend=0.5, roughness=0.0)
    inside = bent.depth(np.random.default_rng(0), grid) > 0
    assert inside[30, 30, 30]
    assert np.argwhere(inside[50]).mean(axis=0)[0] == pytest.approx(30 + 0.5 / 25 * 20**2, abs=1)
    assert np.argwhere(inside[10]).mean(axis=0)[0] == pytest.approx(30 + 0.5 / 25 * 20**2, abs=1)


def test_union_holds_each_part() -> None:
    shapes = [Shape(np.array([x, 0.0, 0.0]), np.full(3, 6.0), np.eye(3), roughness=0.0) for x in (-10, 10)]
    structure = union(np.random.default_rng(0), GRID, shapes)
    assert structure is not None
    mask = structure.mask(GRID.shape)
    assert mask[20, 25, 20]
    assert mask[40, 25, 20]
    assert not mask[30, 25, 20]
    assert structure.mask(GRID.shape, margin=6).sum() > mask.sum()


def test_nothing_is_placed_outside() -> None:
    far = Shape(np.full(3, 200.0), np.full(3, 5.0), np.eye(3))
    assert union(np.random.default_rng(0), GRID, [far]) is None


def test_share_is_half_on_the_border() -> None:
    depth = np.array([-3.0, -1.0, 0.0, 1.0, 3.0], dtype=np.float32)
    assert_allclose(ramp(depth, 2.0), [0, 0, 0.5, 1, 1])
    assert_allclose(Structure((slice(0), slice(0), slice(0)), depth).share(2.0), ramp(depth, 2.0))


def test_smooth_noise_has_unit_spread_and_is_smooth() -> None:
    axes = [np.arange(n, dtype=np.float32) for n in (80, 70, 60)]
    noise = smooth_noise(np.random.default_rng(0), axes, 6.0)
    assert noise.shape == (80, 70, 60)
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.15)
    assert np.abs(np.diff(noise, axis=0)).max() < 1
