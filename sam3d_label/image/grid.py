"""When two voxel grids count as the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ALIGNED = 0.5
"""Share of a voxel's shortest edge by which two grids may be apart and still be the same."""

SAVED = 0.1
"""The same for a label that is saved: clients copy the geometry of its image, so a larger shift is an error."""


def same_place(apart: float, affine: np.ndarray, share: float = ALIGNED) -> bool:
    """Return whether two voxels are at the same place.

    Args:
        apart: Distance between them, mm.
        affine: (4, 4), voxel to mm, of the grid that they are compared on.
        share: Largest distance, as a share of a voxel's shortest edge.
    """
    return bool(apart <= share * np.linalg.norm(affine[:3, :3], axis=0).min())


def corner_shift(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Return the largest distance, mm, between the positions of a volume's corners under two affines.

    Args:
        one: (4, 4), voxel to mm.
        other: The same.
        shape: Voxels along I, J and K.
    """
    corners = np.array(np.meshgrid(*[(0, side - 1) for side in shape], [1])).reshape(4, -1)
    return float(np.linalg.norm(((one - other) @ corners)[:3], axis=0).max())
