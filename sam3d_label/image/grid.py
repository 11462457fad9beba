"""When two voxel grids count as the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ALIGNED = 0.5
"""Share of a voxel's shortest edge by which two grids may be apart and still be the same."""


def same_place(apart: float, affine: np.ndarray) -> bool:
    """Whether voxels that are so far apart, mm, are at the same place on the grid of an affine (4, 4)."""
    return bool(apart <= ALIGNED * np.linalg.norm(affine[:3, :3], axis=0).min())


def corner_shift(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Return by how many mm the corners of a volume of a shape are apart, at most, under two affines (4, 4)."""
    corners = np.array(np.meshgrid(*[(0, side - 1) for side in shape], [1])).reshape(4, -1)
    return float(np.linalg.norm(((one - other) @ corners)[:3], axis=0).max())
