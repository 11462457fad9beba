"""Volumes of adjacent rough regions without anatomy, each a separate target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sam3d_label.synthetic.anatomy import Scene, random_tissues
from sam3d_label.synthetic.geometry import Array, Grid, log_uniform, smooth_noise, texture_noise
from sam3d_label.synthetic.scanner import acquire, choose_grid, random_affine

MIN_REGION_VOXELS = 400
ALIKE = 0.25
"""Share of the regions that look like another one: only clicks can distinguish them."""


@dataclass(frozen=True)
class Mosaic:
    """A volume that consists of regions.

    Attributes:
        image: float32 (I, J, K), an arbitrary positive scale, as of MR.
        label: uint8 (I, J, K), 1 to n in the regions, each connected; 0 in parts that are too small.
        affine: float64 (4, 4), voxel (i, j, k) to RAS millimetres.
    """

    image: Array
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


def make_mosaic(rng: np.random.Generator) -> Mosaic:
    """Make one mosaic, which depends only on the state of ``rng``.

    As in the random shapes of SynthMorph (Hoffmann et al., arXiv 2004.10282), regions have no meaning: the target is
    the region that is clicked.
    """
    shape, spacing = choose_grid(rng, None, None)
    grid = Grid.centred(shape, spacing)
    scale = log_uniform(rng, 12, 45)
    fields = np.stack([smooth_noise(rng, grid.axes, scale) for _ in range(rng.integers(4, 10))])
    kinds = fields.argmax(0)
    tissues = random_tissues(rng, "mr")
    levels = rng.uniform(0.05, 1.0, len(fields))
    for kind in np.flatnonzero(rng.random(len(fields)) < ALIKE):
        levels[kind] = levels[rng.integers(len(fields))] + rng.normal(0, tissues.texture)
    amplitudes = tissues.texture * rng.uniform(0.2, 3.0, len(fields))
    image = levels[kinds] + amplitudes[kinds] * texture_noise(rng, grid)
    scene = Scene(grid, tissues, image.astype(np.float32), np.ones(shape, np.float32))
    return Mosaic(
        image=acquire(rng, scene, "mr", most_noise=float(np.ptp(levels)) / 4),
        label=_regions(kinds, len(fields)),
        affine=random_affine(rng, shape, spacing),
    )


def _regions(kinds: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
    """Return the connected parts of each kind, numbered, those of fewer than `MIN_REGION_VOXELS` voxels left out."""
    label = np.zeros(kinds.shape, np.uint8)
    number = 0
    for kind in range(count):
        parts, _ = ndimage.label(kinds == kind)
        sizes = np.bincount(parts.ravel())
        for part in np.flatnonzero(sizes >= MIN_REGION_VOXELS):
            if part and number < np.iinfo(np.uint8).max:
                number += 1
                label[parts == part] = number
    return label
