"""Normalise scanner intensities for the network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sam3d_label.image.hounsfield import hounsfield_offset, is_clear, without_padding

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 1_000_000
"""Voxels that statistics are taken from, at most, evenly spaced."""


@dataclass(frozen=True)
class Normalization:
    """Clip to [lower, upper], subtract the mean, divide by the standard deviation."""

    lower: float
    upper: float
    mean: float
    std: float
    modality: str | None = None
    """CT or MR, where the rule depended on it."""

    source: Literal["file", "histogram", "guess"] | None = None
    """Source of the modality: the file, evidence in the histogram, or a guess where that is not clear."""

    offset: float = 0.0
    """Of the intensities of a CT from Hounsfield units."""

    def __call__(self, intensities: Tensor) -> Tensor:
        """Normalise intensities of any shape; the shape is kept."""
        return (intensities.clamp(self.lower, self.upper) - self.mean) / self.std


class Window(BaseModel):
    """The same window for every volume, as for CT in Hounsfield units."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["window"] = "window"
    lower: float
    upper: float
    mean: float
    std: float = Field(gt=0)

    def fit(self, array: np.ndarray, modality: str | None = None) -> Normalization:
        """Return the same rule for each volume."""
        return Normalization(self.lower, self.upper, self.mean, self.std)


SOFT_TISSUE = Window(lower=-160, upper=240, mean=40, std=100)
"""The usual soft-tissue window of CT, Hounsfield units."""


class Percentile(BaseModel):
    """A window from the volume's own percentiles, as for MR, whose scale is arbitrary."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["percentile"] = "percentile"
    lower: float = Field(default=0.5, ge=0, le=100)
    upper: float = Field(default=99.5, ge=0, le=100)

    def fit(self, array: np.ndarray, modality: str | None = None) -> Normalization:
        """Return percentiles, mean and deviation of a volume's voxels (any shape), without background of exactly 0."""
        values = sample(array)
        tissue = values[values != 0]
        values = tissue if tissue.size else values
        lower, upper = (float(v) for v in np.percentile(values, [self.lower, self.upper]))
        clipped = np.clip(values, lower, upper)
        return Normalization(lower, upper, float(clipped.mean()), float(clipped.std()) or 1.0)


class CtOrMr(BaseModel):
    """A window for volumes in Hounsfield units, percentiles for all others."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["ct_or_mr"] = "ct_or_mr"
    ct: Window
    mr: Percentile

    def fit(self, array: np.ndarray, modality: str | None = None) -> Normalization:
        """Return the rule of the volume's modality.

        Args:
            array: Intensities of any shape.
            modality: DICOM modality; without it, CT is recognised by its histogram, see `sam3d_label.image.hounsfield`.
        """
        values = sample(array)
        offset = ct_offset(values, modality)
        source: Literal["file", "histogram", "guess"] = "file"
        if not modality:
            source = "histogram" if is_clear(values, offset) else "guess"
        if offset is None:
            return replace(self.mr.fit(without_padding(values)), modality="MR", source=source)
        ct = self.ct.fit(values)
        moved = {name: getattr(ct, name) + offset for name in ("lower", "upper", "mean")}
        return replace(ct, **moved, modality="CT", source=source, offset=offset)


def ct_offset(values: np.ndarray, modality: str | None = None) -> float | None:
    """Return the offset of a volume's values (N,) from Hounsfield units; None if the volume is not CT.

    Args:
        values: Intensities.
        modality: DICOM modality; without it, the histogram decides.
    """
    offset = hounsfield_offset(values) if modality in (None, "", "CT") else None
    return 0.0 if offset is None and modality == "CT" else offset


IntensityRule = Annotated[Window | Percentile | CtOrMr, Field(discriminator="kind")]


def sample(array: np.ndarray) -> np.ndarray:
    """Return at most `SAMPLES` voxels of an array of any shape, evenly spaced, (N,).

    The step has no common factor with the size of the array; otherwise all samples could come from a few slices.
    """
    flat = array.reshape(-1)
    step = max(1, -(-flat.size // SAMPLES))
    while math.gcd(step, flat.size) > 1:
        step += 1
    return flat[::step]
