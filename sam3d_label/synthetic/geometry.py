"""Grids in millimetres, smooth noise, and rough bent ellipsoids for phantoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Slices = tuple[slice, slice, slice]

# Standard deviation of a cubic B-spline of white noise in three dimensions: (151 / 315) ** (3 / 2).
SPLINE_NOISE_SD = (151 / 315) ** 1.5


@dataclass(frozen=True)
class Grid:
    """Voxel centres in millimetres along each array axis, for a whole volume or a box of it."""

    axes: tuple[Array, Array, Array]
    spacing: tuple[float, float, float]

    @classmethod
    def centred(cls, shape: Sequence[int], spacing: Sequence[float]) -> Grid:
        """Return a grid of ``shape`` voxels of ``spacing`` mm around the origin."""
        axes = [
            ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32) for n, step in zip(shape, spacing, strict=True)
        ]
        return cls((axes[0], axes[1], axes[2]), (float(spacing[0]), float(spacing[1]), float(spacing[2])))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return (len(self.axes[0]), len(self.axes[1]), len(self.axes[2]))

    @property
    def extent(self) -> NDArray[np.float64]:
        """Millimetres along each axis, (3,)."""
        return np.array(self.shape) * np.array(self.spacing)

    def box(self, centre: NDArray[np.float64], radius: float) -> Slices:
        """Return voxels within ``radius`` mm of ``centre`` along every axis; empty when the cube misses the grid."""
        bounds = [
            np.searchsorted(axis, (middle - radius, middle + radius))
            for axis, middle in zip(self.axes, centre, strict=True)
        ]
        return (slice(*bounds[0]), slice(*bounds[1]), slice(*bounds[2]))

    def crop(self, box: Slices) -> Grid:
        """Return the part of the grid within ``box``, at the same positions."""
        return Grid((self.axes[0][box[0]], self.axes[1][box[1]], self.axes[2][box[2]]), self.spacing)

    def position(self, index: Sequence[int]) -> NDArray[np.float64]:
        """Return the position of a voxel, millimetres, (3,)."""
        return np.array([axis[i] for axis, i in zip(self.axes, index, strict=True)], dtype=np.float64)


def smooth_noise(rng: np.random.Generator, axes: Sequence[Array], scale: float) -> Array:
    """Return Gaussian noise that varies over ``scale`` millimetres.

    It is white noise on a coarse grid, interpolated by separable cubic B-splines.

    Args:
        rng: the source of randomness.
        axes: voxel centres along each of the three axes, millimetres.
        scale: distance between the nodes, millimetres.

    Returns:
        float32 of shape ``(len(axes[0]), len(axes[1]), len(axes[2]))``, mean 0, standard deviation about 1.
    """
    first, second, third = (_spline_weights(axis, scale, rng.uniform()) for axis in axes)
    nodes = rng.standard_normal((first.shape[1], second.shape[1], third.shape[1]), dtype=np.float32)
    noise = np.tensordot(first, nodes, axes=1)
    noise = np.matmul(second, noise)
    return np.matmul(noise, third.T) / np.float32(SPLINE_NOISE_SD)


def texture_noise(rng: np.random.Generator, grid: Grid) -> Array:
    """Return noise of several scales on a grid, (I, J, K), standard deviation about 1."""
    finest = 1.5 * max(min(grid.spacing), 1.0)
    scales = finest * np.array([1.0, 3.0, 9.0]) * rng.uniform(1, 2)
    weights = rng.dirichlet(np.ones(3))
    weights = weights / np.linalg.norm(weights)
    total = np.zeros(grid.shape, dtype=np.float32)
    for scale, weight in zip(scales, weights, strict=True):
        total += np.float32(weight) * smooth_noise(rng, grid.axes, float(scale))
    return total


@dataclass(frozen=True)
class Shape:
    """A rough, bent ellipsoid.

    Attributes:
        centre: millimetres, (3,).
        radii: millimetres along the shape's own axes, (3,).
        rotation: (3, 3), rows are the shape's own axes.
        bend: how far the ends of the first axis leave it, as a share of its radius.
        roughness: standard deviation of the noise on the radius, relative.
        grain: length of that noise as a share of the mean radius.
    """

    centre: NDArray[np.float64]
    radii: NDArray[np.float64]
    rotation: NDArray[np.float64]
    bend: float = 0.0
    roughness: float = 0.1
    grain: float = 0.8

    @property
    def reach(self) -> float:
        """Radius around the centre, mm, that contains all of it except rare outliers of the noise."""
        return float(self.radii.max() * (1 + 3 * self.roughness) + abs(self.bend) * self.radii[0])

    def depth(self, rng: np.random.Generator, grid: Grid) -> Array:
        """Return the approximate signed distance of each voxel to the border, mm, (I, J, K); positive inside."""
        offsets = [(axis - middle).astype(np.float32) for axis, middle in zip(grid.axes, self.centre, strict=True)]
        x, y, z = offsets[0][:, None, None], offsets[1][None, :, None], offsets[2][None, None, :]
        u, v, w = (np.float32(row[0]) * x + np.float32(row[1]) * y + np.float32(row[2]) * z for row in self.rotation)
        if self.bend:
            v = v - np.float32(self.bend / self.radii[0]) * u * u
        a, b, c = (np.float32(1 / radius) for radius in self.radii)
        u, v, w = u * a, v * b, w * c
        level = np.sqrt(u * u + v * v + w * w)
        slope = np.sqrt((u * a) ** 2 + (v * b) ** 2 + (w * c) ** 2) + np.float32(1e-6)
        rough = np.float32(self.roughness) * self._rough(rng, grid)
        return (level + np.float32(1e-6)) * (1 + rough - level) / slope

    def _rough(self, rng: np.random.Generator, grid: Grid) -> Array:
        """Return noise of two scales, standard deviation about 1."""
        grain = max(self.grain * float(self.radii.mean()), 2 * min(grid.spacing))
        waves = smooth_noise(rng, grid.axes, grain)
        ripples = smooth_noise(rng, grid.axes, max(grain / 3, 1.5 * min(grid.spacing)))
        return np.float32(0.92) * waves + np.float32(0.39) * ripples


@dataclass(frozen=True)
class Structure:
    """The extent of a structure: its depth in millimetres within a box of the volume."""

    box: Slices
    depth: Array

    def share(self, edge: float) -> Array:
        """Return the share of each voxel that it fills, 0 to 1, rising over about ``edge`` mm at the border."""
        return ramp(self.depth, edge)

    def mask(self, shape: Sequence[int], margin: float = 0.0) -> Mask:
        """Return the voxels of the whole volume that are inside, or up to ``margin`` mm outside."""
        whole = np.zeros(shape, dtype=bool)
        whole[self.box] = self.depth > -margin
        return whole


def union(rng: np.random.Generator, grid: Grid, shapes: Sequence[Shape], margin: float = 8.0) -> Structure | None:
    """Return the structure that is the union of ``shapes``; None when all of it is outside the grid."""
    low = np.min([shape.centre - shape.reach for shape in shapes], axis=0)
    high = np.max([shape.centre + shape.reach for shape in shapes], axis=0)
    box = grid.box((low + high) / 2, float((high - low).max() / 2 + margin))
    local = grid.crop(box)
    if min(local.shape) == 0:
        return None
    depth = shapes[0].depth(rng, local)
    for shape in shapes[1:]:
        np.maximum(depth, shape.depth(rng, local), out=depth)
    return Structure(box, depth)


def ramp(depth: Array, edge: float) -> Array:
    """Return a smooth step from 0 at a depth of ``-edge / 2`` mm to 1 at ``edge / 2`` mm."""
    t = np.clip(depth / np.float32(edge) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a random number from ``low`` to ``high``; every octave is as likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return random orthonormal axes as the rows of a (3, 3) matrix."""
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return rotation


def small_rotation(rng: np.random.Generator, most: float) -> NDArray[np.float64]:
    """Return a rotation (3, 3) about a random axis by up to ``most`` radians (Rodrigues)."""
    x, y, z = (axis := rng.standard_normal(3)) / np.linalg.norm(axis)
    angle = rng.uniform(0.1, 1) * most
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _spline_weights(axis: Array, scale: float, offset: float) -> Array:
    """Return cubic B-spline weights, float32 (len(axis), nodes)."""
    position = (axis - axis[0]) / scale + offset + 1
    nodes = np.arange(int(np.floor(position[-1])) + 3)
    distance = np.abs(position[:, None] - nodes[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)
