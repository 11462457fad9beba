"""The frame of a crop on a stored grid: stored voxels i, j, k to crop voxels d, h, w and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CropFrame:
    """A cubic crop of isotropic voxels laid over a stored grid.

    Its axes run along those of the stored grid, reordered and flipped to superior, posterior and left, so that taking
    a crop needs no rotation.

    Attributes:
        centre: Middle of the crop, voxels i, j, k of the stored grid (fractions allowed).
        spacing: Edge of a crop voxel, mm.
        size: Edge of the crop, crop voxels.
        axes: Stored axis under D, H and W.
        steps: Stored voxels per mm along D, H and W; negative where the stored axis runs the other way.
    """

    centre: tuple[float, float, float]
    spacing: float
    size: int
    axes: tuple[int, int, int]
    steps: tuple[float, float, float]

    def to_dhw(self, ijk: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """Convert stored voxels i, j, k (N, 3) to crop voxels d, h, w (N, 3)."""
        offset = np.asarray(ijk, float).reshape(-1, 3)[:, self.axes] - np.asarray(self.centre)[list(self.axes)]
        return offset / (np.asarray(self.steps) * self.spacing) + (self.size - 1) / 2

    def to_ijk(self, dhw: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """Convert crop voxels d, h, w (N, 3) to stored voxels i, j, k (N, 3)."""
        offset = (np.asarray(dhw, float).reshape(-1, 3) - (self.size - 1) / 2) * self.spacing * np.asarray(self.steps)
        ijk = np.empty_like(offset)
        ijk[:, self.axes] = offset + np.asarray(self.centre)[list(self.axes)]
        return ijk

    def holds(self, ijk: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """Return which of the centres of stored voxels (N, 3) are in the crop, bool (N,)."""
        dhw = self.to_dhw(ijk)
        return ((dhw > -0.5) & (dhw < self.size - 0.5)).all(1)

    def contains(self, ijk: Sequence[float]) -> bool:
        """Return whether a stored voxel's centre is in the crop."""
        return bool(self.holds([ijk])[0])

    @property
    def field(self) -> float:
        """Edge of the crop, mm."""
        return self.spacing * self.size
