"""From scanner intensities to what the network was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

AIR_HU = -500.0
"""Between air and fat, the darkest tissue at -100 HU. Values below it are air of CT, or padding of any modality."""

STORED_OFFSET = 1024.0
"""What some tools add to Hounsfield units to store them without a sign."""

MANY = 0.005
"""Share of the voxels of a volume that is no accident."""

SHADES = 32
"""Intensities in a volume that somebody has painted, not scanned."""

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
        """The rule itself, whatever the volume."""
        return Normalization(self.lower, self.upper, self.mean, self.std)


class Percentile(BaseModel):
    """A window from the volume's own percentiles, as for MR, whose scale is arbitrary."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["percentile"] = "percentile"
    lower: float = Field(default=0.5, ge=0, le=100)
    upper: float = Field(default=99.5, ge=0, le=100)

    def fit(self, array: np.ndarray, modality: str | None = None) -> Normalization:
        """Percentiles, mean and deviation of a volume's voxels (any shape), background of exactly 0 left aside."""
        values = sample(array)
        tissue = values[values != 0]
        values = tissue if tissue.size else values
        lower, upper = (float(v) for v in np.percentile(values, [self.lower, self.upper]))
        clipped = np.clip(values, lower, upper)
        return Normalization(lower, upper, float(clipped.mean()), float(clipped.std()) or 1.0)


class CtOrMr(BaseModel):
    """The window where a volume is in Hounsfield units, the percentiles elsewhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["ct_or_mr"] = "ct_or_mr"
    ct: Window
    mr: Percentile

    def fit(self, array: np.ndarray, modality: str | None = None) -> Normalization:
        """The rule of the volume's modality.

        Args:
            array: Intensities of any shape.
            modality: DICOM modality; without it, CT is recognised by its histogram, see `hounsfield_offset`.
        """
        values = sample(array)
        offset = hounsfield_offset(values) if modality in (None, "", "CT") else None
        if offset is None and modality == "CT":
            offset = 0.0
        if offset is None:
            return replace(self.mr.fit(without_padding(values)), modality="MR")
        ct = self.ct.fit(values)
        moved = {name: getattr(ct, name) + offset for name in ("lower", "upper", "mean")}
        return replace(ct, **moved, modality="CT")


def without_padding(values: np.ndarray) -> np.ndarray:
    """Intensities (N,) of a volume that is no CT without those of padding: one low value, often in it."""
    lowest = values.min()
    padding = values == lowest
    return values[~padding] if lowest < AIR_HU and MANY < padding.mean() < 1 else values


def hounsfield_offset(values: np.ndarray) -> float | None:
    """What was added to Hounsfield units to get the values of a volume; None where they are no CT.

    Values far below fat are air in CT, or the padding of MR that was resampled. Padding is one value; air has noise.
    CT also has fat and borders of air, just below 0, where MR has nothing. Hounsfield units that were stored with an
    offset show as air near 0 and tissue in a narrow range around the offset; no MR has that.

    Args:
        values: Intensities (N,).
    """
    air = values[values <= AIR_HU]
    if len(air):
        is_padding = np.mean(air == air.min()) > 0.9
        return 0.0 if not is_padding or _is_body(values[values > AIR_HU]) else None
    shifted = values - STORED_OFFSET
    air, body = shifted[shifted <= AIR_HU], shifted[shifted > AIR_HU]
    if min(len(air), len(body)) < MANY * len(values) or values.min() < -0.1 * STORED_OFFSET:
        return None
    air_is_dark = np.mean(air < -900) > 0.02  # the rest may be lung
    body_is_soft = np.mean(np.abs(body) < 200) > 0.6 and np.mean((body > -20) & (body < 120)) > 0.3
    return STORED_OFFSET if air_is_dark and body_is_soft else None


def _is_body(values: np.ndarray) -> bool:
    """Whether values above padding, in Hounsfield units, can be a body: with fat, or painted in a few shades."""
    if not len(values) or np.mean(values < -5) > 0.02:
        return True
    return bool(np.mean(np.abs(values) < 200) > 0.9) and len(np.unique(values)) <= SHADES


IntensityRule = Annotated[Window | Percentile | CtOrMr, Field(discriminator="kind")]


def sample(array: np.ndarray) -> np.ndarray:
    """At most `SAMPLES` voxels of an array, evenly spaced.

    The step shares no factor with the edges of the array: it would fall on the same few slices again and again.
    """
    flat = array.reshape(-1)
    step = max(1, -(-flat.size // SAMPLES))
    while math.gcd(step, flat.size) > 1:
        step += 1
    return flat[::step]
