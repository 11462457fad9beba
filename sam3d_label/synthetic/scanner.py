"""The simulated scanner: voxel grid, orientation, and its effects on the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sam3d_label.errors import Sam3dError
from sam3d_label.synthetic.anatomy import Modality, Scene
from sam3d_label.synthetic.geometry import Array, log_uniform, small_rotation, smooth_noise

MIN_AXIS = 8


def choose_grid(
    rng: np.random.Generator,
    shape: tuple[int, int, int] | None,
    spacing: tuple[float, float, float] | None,
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Check the given shape and spacing, and choose those not given."""
    slice_axis = 2 if rng.random() < 0.85 else int(rng.integers(3))
    size = rng.integers(96, 161, size=3)
    size[slice_axis] = rng.integers(32, 65)
    step = np.full(3, round(rng.uniform(0.6, 1.5), 4))
    step[slice_axis] = round(max(step[0], log_uniform(rng, 1.0, 6.0)), 4)
    if shape is None:
        shape = (int(size[0]), int(size[1]), int(size[2]))
    if spacing is None:
        spacing = (float(step[0]), float(step[1]), float(step[2]))
    if len(shape) != 3 or min(shape) < MIN_AXIS:
        raise Sam3dError(f"a phantom needs three axes of at least {MIN_AXIS} voxels, not {shape}")
    if len(spacing) != 3 or not all(np.isfinite(spacing)) or min(spacing) <= 0:
        raise Sam3dError(f"spacing must be three positive lengths in mm, not {spacing}")
    return shape, spacing


def random_affine(rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Return an affine (4, 4), voxel i, j, k to RAS mm.

    Most are LPS or RAS, the others have any axis order and flips; one in five is oblique by up to 15 degrees.
    """
    draw = rng.random()
    if draw < 0.35:
        directions = np.diag([-1.0, -1.0, 1.0])
    elif draw < 0.6:
        directions = np.eye(3)
    else:
        directions = np.eye(3)[rng.permutation(3)] * rng.choice([-1.0, 1.0], size=3)
    if rng.random() < 0.2:
        directions = small_rotation(rng, np.deg2rad(15)) @ directions
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing)
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    affine[:3, 3] = rng.uniform(-150, 150, size=3) - middle
    return affine


def acquire(rng: np.random.Generator, scene: Scene, modality: Modality, most_noise: float) -> Array:
    """Return the scene as a scanner shows it: blur, then bias field and noise of the modality; float32."""
    fine = min(scene.grid.spacing)
    blur = [rng.uniform(0.25, 0.7) if step < 1.5 * fine else rng.uniform(0.25, 0.5) for step in scene.grid.spacing]
    image = ndimage.gaussian_filter(scene.image, blur, truncate=3.0)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    if modality == "ct":
        grain = rng.uniform(0.3, 0.9)
        noise = ndimage.gaussian_filter(noise, [grain if step < 1.5 * fine else 0 for step in scene.grid.spacing])
        noise *= np.float32(min(log_uniform(rng, 4, 35), most_noise)) / noise.std()
        return np.clip(image + noise, -1024, 3071)
    bias = np.exp(np.float32(rng.uniform(0, 0.3)) * smooth_noise(rng, scene.grid.axes, rng.uniform(60, 160)))
    sd = np.float32(min(log_uniform(rng, 0.008, 0.06), most_noise))
    other = rng.standard_normal(image.shape, dtype=np.float32)
    magnitude = np.hypot(np.clip(image, 0, None) * bias + sd * noise, sd * other)
    return (magnitude * np.float32(log_uniform(rng, 200, 4000))).astype(np.float32)
