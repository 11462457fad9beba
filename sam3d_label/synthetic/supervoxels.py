"""Targets without annotation: connected pieces of real images.

A network that is trained on one kind of target segments this kind, also where something else is clicked. ScribblePrompt
(Wong et al., arXiv 2312.07381) adds superpixels of its training images as targets; this module does so in 3D.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_multiotsu
from skimage.segmentation import watershed

from sam3d_label.image.intensity import Normalization
from sam3d_label.image.volume import Volume

FEWEST_VOXELS = 400
LARGEST_SHARE = 0.15
"""Largest share of the volume that a piece may fill: larger ones are background or the whole body."""

TAKEN_SHARE = 0.1
"""Share of a piece that a known target may fill: a larger overlap would give two targets for the same click."""

LEAST_SOLID = 0.25
"""Least radius of the largest ball in a piece over the cube root of its volume (0.62 for a ball, 0.38 for a rod six
radii long): layers and branches are not useful targets."""

SMOOTHING_MM = (1.0, 4.0)
NECK_MM = (2.0, 7.0)
"""Half the width of the thinnest bridge between two parts of one piece."""

CLASSES = (3, 5)
BINS = 64


def find_supervoxels(
    volume: Volume, normalization: Normalization, taken: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Find connected pieces of similar grey values, separated at narrow necks.

    Args:
        volume: The image.
        normalization: The intensity rule fitted to it; classes of grey values are those of Otsu under this rule.
        taken: Known targets, (I, J, K); a piece that they fill by more than `TAKEN_SHARE` is left out.
        rng: Source of randomness: smoothing, number of classes of grey values, width of a neck.

    Returns:
        uint8 (I, J, K), 1 to n in the pieces, 0 elsewhere.
    """
    grey = normalization(torch.from_numpy(volume.array)).numpy()
    smooth = ndimage.gaussian_filter(grey, float(rng.uniform(*SMOOTHING_MM)) / volume.spacing)
    levels = threshold_multiotsu(smooth, int(rng.integers(CLASSES[0], CLASSES[1] + 1)), nbins=BINS)
    classes, neck = np.digitize(smooth, levels), float(rng.uniform(*NECK_MM))
    label = np.zeros(volume.shape, np.uint8)
    number = 0
    for kind in range(len(levels) + 1):
        for box, piece in _separate(classes == kind, volume.spacing, neck):
            if np.mean(taken[box][piece]) <= TAKEN_SHARE and number < np.iinfo(np.uint8).max:
                number += 1
                label[box][piece] = number
    return label


def _separate(
    mask: NDArray[np.bool_], spacing: np.ndarray, neck: float
) -> Iterator[tuple[tuple[slice, ...], NDArray[np.bool_]]]:
    """Separate a mask at its necks and yield box and mask of each solid part."""
    # Unlike in `masks.depth`, the border of the volume does not end a part.
    depth = ndimage.distance_transform_edt(mask, sampling=spacing)
    cores, count = ndimage.label(depth > neck)
    parts = watershed(-depth, cores, mask=mask)
    for number, box in enumerate(ndimage.find_objects(parts, count), start=1):
        piece = parts[box] == number if box else np.zeros(0, bool)
        voxels = np.count_nonzero(piece)
        edge = (voxels * spacing.prod()) ** (1 / 3)
        sized = FEWEST_VOXELS <= voxels <= LARGEST_SHARE * mask.size
        if sized and depth[box][piece].max() >= LEAST_SOLID * edge:
            yield box, piece
