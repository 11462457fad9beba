"""Decide from a histogram whether intensities are Hounsfield units.

Decided with evidence: CT has fat (about -100) and soft tissue (0 to 80) as two peaks with a dip between them, next to
air with noise. Padding is one value; edges of padding that was resampled are no peak. MR without negative values that
resembles neither CT with an offset nor CT of one organ is recognised, too.

Guessed: CT whose air was clipped at a round number or replaced by one value, as MR with the scale of z-scores times 100
may look like it; CT of one tissue only (an organ without fat), with contrast or bone throughout, or with an offset
other than 0 and 1024; MR with negative values; maps (T1, ADC) around 1000. The response then has `guess`; the DICOM
modality or `--conf intensity` avoids guessing.
"""

from __future__ import annotations

import numpy as np

AIR_HU = -500.0
"""Between air and fat, the darkest tissue at -100 HU. Values below it are air of CT, or padding of any modality."""

STORED_OFFSET = 1024.0
"""Offset that some tools add to Hounsfield units to store them without a sign."""

MANY = 0.005
"""Share of the voxels of a volume that is not due to outliers."""

SHADES = 32
"""Number of different intensities below which a volume is synthetic."""

BIN = 20.0
FAT, BETWEEN, SOFT = (-140.0, -60.0), (-60.0, 20.0), (-20.0, 100.0)
LEAST_FAT, LEAST_SOFT = 0.03, 0.15
"""Shares of a body; CT of heads has least fat, CT of chests least soft tissue."""

SPIKE = 0.3
"""Share of a body in one bin from which on it is a background, not fat."""

JITTER = 4.0
"""Deviation of padding from its value: noise of rounding and resampling, far below that of a scanner's air."""


def hounsfield_offset(values: np.ndarray) -> float | None:
    """Return the offset of a volume's values from Hounsfield units; None if the volume is not CT.

    Args:
        values: Intensities (N,).
    """
    is_dark = values.min() <= AIR_HU or _is_clipped(values)
    if (is_dark and has_fat_and_soft_tissue(values)) or _has_air(values) or _is_soft_tissue_in_air(values, 100):
        return 0.0
    shifted = values - STORED_OFFSET
    if (_has_dark_air(values) and has_fat_and_soft_tissue(shifted)) or _is_soft_tissue_in_air(shifted, 15):
        return STORED_OFFSET
    return None


def is_clear(values: np.ndarray, offset: float | None) -> bool:
    """Return whether the histogram is evidence for the result of `hounsfield_offset`, not only a hint."""
    if offset is not None:
        return has_fat_and_soft_tissue(values - offset) and (offset != 0 or _has_air(values))
    body = values[values > AIR_HU]
    like_offset = _has_dark_air(values)
    like_organ = np.mean((body > SOFT[0]) & (body < 150)) > 0.9 and values.max() > 50
    return bool(np.mean(body < 0) < MANY and not like_offset and not like_organ)


def has_fat_and_soft_tissue(values: np.ndarray) -> bool:
    """Return whether Hounsfield units have the two peaks of a body."""
    body = values[values > AIR_HU]
    if len(body) < MANY * len(values):
        return False
    edges = np.arange(FAT[0], SOFT[1] + BIN, BIN)
    counts = np.histogram(body, edges)[0] / len(body)

    def shares(span: tuple[float, float]) -> np.ndarray:
        return counts[(edges[:-1] >= span[0]) & (edges[:-1] < span[1])]

    fat, between, soft = shares(FAT), shares(BETWEEN), shares(SOFT)
    dips = between.min() < 0.9 * min(fat.max(), soft.max())
    return bool(fat.sum() > LEAST_FAT and soft.sum() > LEAST_SOFT and fat.max() < SPIKE and dips)


def without_padding(values: np.ndarray) -> np.ndarray:
    """Return intensities (N,) of a volume that is no CT without those of padding: a low value, often in it."""
    lowest = values.min()
    padding = values <= lowest + JITTER
    return values[~padding] if lowest < AIR_HU and MANY < padding.mean() < 1 else values


def _has_air(values: np.ndarray) -> bool:
    """Return whether low values are air with noise, not padding, and are next to something just below 0."""
    low, body = values[values <= AIR_HU], values[values > AIR_HU]
    for _ in range(2):  # the padding of a scanner, and that of a program
        if len(low):
            numbers, counts = np.unique(np.rint(low), return_counts=True)
            low = low[np.abs(low - numbers[counts.argmax()]) > JITTER]
    if len(low) < 0.02 * len(values) or not len(body):
        return False
    counts = np.histogram(low, np.arange(-1500, AIR_HU + 1, 25))[0]
    in_150 = np.convolve(counts, np.ones(6), "valid")
    is_peak = in_150.max() > 0.5 * len(low) and in_150.argmax() < len(in_150) - 6  # no tail of something brighter
    return bool(is_peak and np.mean(body < -20) > 0.05 and np.mean(np.abs(body) < 150) > 0.3)


def _is_clipped(values: np.ndarray) -> bool:
    """Return whether air was clipped at the lower end of a window, a round number below fat."""
    lowest = float(values.min())
    return bool(AIR_HU < lowest <= FAT[0] and lowest % 5 == 0 and np.mean(values == lowest) > MANY)


def _is_soft_tissue_in_air(values: np.ndarray, tolerance: float) -> bool:
    """Return whether values are a phantom's: soft tissue alone, in air with noise near -1000 HU or in a few shades."""
    low, body = values[values <= AIR_HU], values[values > AIR_HU]
    if min(len(low), len(body)) < MANY * len(values) or np.mean(np.abs(body) < 200) <= 0.9:
        return False
    is_air = abs(np.median(low) + 1000) < tolerance and np.ptp(np.quantile(low, (0.1, 0.9))) > JITTER
    return bool(is_air) or len(np.unique(values)) <= SHADES


def _has_dark_air(values: np.ndarray) -> bool:
    """Return whether values would have air and a body with little bone, were they Hounsfield units with the offset."""
    shifted = values - STORED_OFFSET
    body = shifted[shifted > AIR_HU]
    if len(body) < MANY * len(values) or values.min() < -0.1 * STORED_OFFSET:
        return False
    is_soft = np.mean(np.abs(body) < 200) > 0.6 and np.mean((body > -20) & (body < 120)) > 0.3
    return bool(np.mean(shifted < -900) > 0.01 and is_soft)
