"""Air outside the body, which is no target unless a click says so.

Networks see CT through a soft-tissue window, in which air and fat look alike, so that a mask can leave the body.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sam3d_label.image.intensity import Normalization
from sam3d_label.image.region import Region
from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.prompts import Click

CT_AIR = -500.0
"""Hounsfield units below which a voxel outside the body is air: about the middle between air and fat."""

COARSE_MM = 3.0
"""Edge of the cells in which air is searched for."""

DARK, DARKEST = 0.2, 0.15
"""Share of an MR volume's intensities below which a voxel may be air; the most that the noise of air may reach."""

NOISE = 4.0
"""Standard deviations of the noise of air above its median that still count as air."""

LEAST_SHARE, MOST_SHARE = 0.02, 0.7
"""Share of an MR volume that its air takes: less is a dark tissue at the border, more is a PET."""


@dataclass(frozen=True)
class OutsideAir:
    """The air that is connected to the sides of a volume.

    Attributes:
        volume: The volume.
        cells: Which cells of the coarse grid are in the air or next to it, bool.
        steps: Stored voxels of a cell along I, J and K.
        threshold: Intensity below which a voxel in such a cell is air.
    """

    volume: Volume
    cells: np.ndarray
    steps: tuple[int, int, int]
    threshold: float

    @classmethod
    def find(cls, volume: Volume, normalization: Normalization) -> OutsideAir | None:
        """Return the air of a CT or MR volume; None where there is none, or none that is clear.

        In CT, air is known by its Hounsfield units. In MR it is the darkest region at the sides of the volume, if that
        is much darker than tissue and uniform apart from noise.

        Args:
            volume: The volume.
            normalization: The intensity rule fitted to it, which knows its modality.
        """
        steps = [max(1, round(COARSE_MM / spacing)) for spacing in volume.spacing]
        coarse = volume.array[:: steps[0], :: steps[1], :: steps[2]]
        sides = volume.frame((0, 0, 0), COARSE_MM, 1).axes[1:]
        if normalization.modality == "CT":
            threshold = normalization.offset + CT_AIR
            cells = connected_to_sides(coarse < threshold, sides)
            return cls._of(volume, cells, steps, threshold) if cells.any() else None
        if normalization.modality != "MR" or volume.modality not in (None, "MR"):
            return None
        lowest, high = float(coarse.min()), float(np.percentile(volume.sample, 99))
        dark = coarse[connected_to_sides(coarse < lowest + DARK * (high - lowest), sides)]
        if dark.size < LEAST_SHARE * coarse.size:
            return None
        median = float(np.median(dark))
        threshold = median + NOISE * 1.4826 * float(np.median(np.abs(dark - median)))
        cells = connected_to_sides(coarse < threshold, sides)
        if threshold > lowest + DARKEST * (high - lowest) or not LEAST_SHARE <= cells.mean() <= MOST_SHARE:
            return None
        return cls._of(volume, cells, steps, threshold)

    @classmethod
    def _of(cls, volume: Volume, cells: np.ndarray, steps: Sequence[int], threshold: float) -> OutsideAir:
        return cls(volume, ndimage.binary_dilation(cells), (steps[0], steps[1], steps[2]), threshold)

    def within(self, region: Region) -> np.ndarray:
        """Return which voxels of a region are air, bool."""
        at = [np.arange(along.start, along.stop) // step for along, step in zip(region, self.steps, strict=True)]
        return self.cells[np.ix_(*at)] & (self.volume.array[region] < self.threshold)

    def has_any(self, clicks: Iterable[Click]) -> bool:
        """Return whether a positive click is in the air."""
        return any(click.positive and bool(self.within(_voxel(click)).any()) for click in clicks)


def connected_to_sides(mask: np.ndarray, axes: Iterable[int]) -> np.ndarray:
    """Return the components of a mask (I, J, K), by faces, that reach an end of one of some axes."""
    labels, _ = ndimage.label(mask)
    ends = [np.unique(labels.take(end, axis)) for axis in axes for end in (0, -1)]
    found = np.zeros(int(labels.max()) + 1, bool)
    found[np.concatenate(ends)] = True
    found[0] = False
    return found[labels]


def _voxel(click: Click) -> Region:
    i, j, k = (slice(at, at + 1) for at in click.ijk)
    return i, j, k
