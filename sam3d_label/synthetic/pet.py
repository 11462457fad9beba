"""A phantom as a PET scanner shows it: a hot lesion among organs that take up some of the tracer."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from sam3d_label.synthetic.geometry import Array, log_uniform
from sam3d_label.synthetic.phantoms import Phantom

BODY_HU = -300.0
"""Least HU of a voxel that takes up the tracer."""

FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))


def pet_image(rng: np.random.Generator, phantom: Phantom) -> Array:
    """Return the uptake (I, J, K) that a PET scanner shows of a CT phantom, in SUV, float32, never negative.

    Soft tissue takes up little, each organ its own amount, lesions much: the labelled one and those that look like it.
    The scanner blurs by 5 to 8 mm, and its noise grows with the square root of the uptake.

    Args:
        rng: Source of randomness.
        phantom: The anatomy; of modality `ct`, whose values tell tissue from air.
    """
    uptake = np.where(phantom.image > BODY_HU, rng.uniform(0.3, 0.8), 0.0).astype(np.float32)
    for organ in range(1, int(phantom.organs.max()) + 1):
        uptake[phantom.organs == organ] = rng.uniform(0.5, 3.0)
    uptake[phantom.distractors > 0] = log_uniform(rng, 3.0, 12.0)
    uptake[phantom.label > 0] = log_uniform(rng, 4.0, 15.0)
    spacing = np.linalg.norm(phantom.affine[:3, :3], axis=0)
    image = ndimage.gaussian_filter(uptake, rng.uniform(5.0, 8.0) * FWHM_TO_SIGMA / spacing)
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), 2.0 / spacing)
    noise *= np.sqrt(image) * np.float32(rng.uniform(0.05, 0.15) / noise.std())
    return np.clip(image + noise, 0, None)
