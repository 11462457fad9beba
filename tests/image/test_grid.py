import numpy as np
import pytest

from sam3d_label.image.grid import corner_shift, same_place


def test_grids_may_be_half_of_the_shortest_edge_apart() -> None:
    affine = np.diag([2.0, 1.0, 5.0, 1.0])
    assert same_place(0.5, affine)
    assert not same_place(0.51, affine)


def test_a_stretch_moves_the_far_corner_most() -> None:
    stretched = np.diag([1.1, 1.0, 1.0, 1.0])
    stretched[2, 3] = 0.3
    assert corner_shift(np.eye(4), stretched, (11, 5, 5)) == pytest.approx(np.hypot(1.0, 0.3))
