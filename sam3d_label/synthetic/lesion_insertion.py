"""Insert small synthetic lesions into real images, as targets in real tissue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from sam3d_label.synthetic.anatomy import Modality, Scene, random_tissues
from sam3d_label.synthetic.geometry import Array, Grid, Mask, log_uniform
from sam3d_label.synthetic.lesions import GAP_MM, LESION_KINDS, Lesion, paint_lesions, try_lesion

DIAMETERS_MM = (8.0, 40.0)
LESIONS = (4, 9)
FEWEST_VOXELS = 50
ATTEMPTS = 60

NOISE_VOXELS = 1.0
"""Standard deviation, voxels, of the Gaussian that separates an image from its noise; lesions get the same noise."""

CT_BODY_HU = -250.0
MR_SCALE_PERCENTILE = 99.0


def insert_lesions(
    rng: np.random.Generator, image: Array, spacing: Sequence[float], modality: Modality, taken: Mask
) -> tuple[Array, NDArray[np.uint8]]:
    """Insert some small lesions into the body, separate from each other and from occupied voxels.

    Args:
        rng: the source of randomness.
        image: a real volume (I, J, K); HU for CT.
        spacing: millimetres per voxel along I, J, K.
        modality: of the image.
        taken: voxels where no lesion may be placed, (I, J, K).

    Returns:
        float32 (I, J, K), the image with the lesions, and uint8 (I, J, K), 1 to n in them; n is at most 9, and 0 where
        the body has no room.
    """
    scale = 1.0 if modality == "ct" else float(np.percentile(image, MR_SCALE_PERCENTILE)) or 1.0
    scene, noise = _scene(rng, image.astype(np.float32) / np.float32(scale), spacing, modality)
    label = np.zeros(image.shape, np.uint8)
    for number, lesion in enumerate(_lesions(rng, scene, taken), start=1):
        paint_lesions(rng, scene, lesion, [])
        label[lesion.mask] = number
    return (scene.image + noise) * np.float32(scale), label


def _scene(rng: np.random.Generator, image: Array, spacing: Sequence[float], modality: Modality) -> tuple[Scene, Array]:
    """Return a real image to paint on, and its noise."""
    smooth = ndimage.gaussian_filter(image, NOISE_VOXELS)
    body = smooth > (CT_BODY_HU if modality == "ct" else threshold_otsu(smooth) / 2)
    noise = image - smooth
    tissues = random_tissues(rng, modality)
    visible = replace(tissues, texture=float(min(noise[body].std(), tissues.contrasts[0]))) if body.any() else tissues
    return Scene(Grid.centred(image.shape, spacing), visible, smooth, body.astype(np.float32)), noise


def _lesions(rng: np.random.Generator, scene: Scene, taken: Mask) -> Iterator[Lesion]:
    """Insert non-overlapping lesions, as many as are drawn and fit."""
    wanted, taken = int(rng.integers(LESIONS[0], LESIONS[1] + 1)), taken.copy()
    for _ in range(ATTEMPTS):
        if not wanted:
            return
        lesion = try_lesion(rng, scene, LESION_KINDS[rng.integers(len(LESION_KINDS))], log_uniform(rng, *DIAMETERS_MM))
        if lesion is None or lesion.mask.sum() < FEWEST_VOXELS:
            continue
        around = lesion.structure.mask(scene.grid.shape, margin=GAP_MM)
        if not (around & taken).any():
            taken |= around
            wanted -= 1
            yield lesion
