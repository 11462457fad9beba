"""Regions: boxes of the stored grid, as slices of its axes I, J and K."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Region = tuple[slice, slice, slice]


def whole(shape: Sequence[int]) -> Region:
    """Return the region of a complete grid."""
    return slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])


def around(ijk: Sequence[int], reach: Sequence[int] | np.ndarray, shape: Sequence[int]) -> Region:
    """Return the region of the voxels up to `reach` away from a voxel along each axis, inside the grid."""
    i, j, k = (
        slice(max(0, int(at) - int(r)), min(size, int(at) + int(r) + 1))
        for at, r, size in zip(ijk, reach, shape, strict=True)
    )
    return i, j, k


def union(regions: Sequence[Region]) -> Region | None:
    """Return the smallest region that contains all of the given ones; None if there are none."""
    if not regions:
        return None
    i, j, k = (slice(min(r[n].start for r in regions), max(r[n].stop for r in regions)) for n in range(3))
    return i, j, k


def intersection(first: Region, second: Region) -> Region | None:
    """Return the overlap of two regions; None when there is none."""
    i, j, k = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
    return (i, j, k) if all(along.start < along.stop for along in (i, j, k)) else None


def empty(region: Region) -> Region:
    """Return the region without voxels at the beginning of another one."""
    i, j, k = (slice(along.start, along.start) for along in region)
    return i, j, k


def relative(region: Region, origin: Region) -> Region:
    """Return a region counted from the beginning of another one."""
    i, j, k = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(region, origin, strict=True))
    return i, j, k


def shape_of(region: Region) -> tuple[int, int, int]:
    """Return the number of voxels of a region along I, J and K."""
    i, j, k = (along.stop - along.start for along in region)
    return i, j, k
