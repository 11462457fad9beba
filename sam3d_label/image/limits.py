"""Limits of the size of a volume. They bound memory and time, and are far above the sizes that scanners produce."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sam3d_label.errors import VolumeError

MIB = 2**20

SMALL_VOXELS = 2**22
"""Voxels of a volume that is read in little memory: 16 MiB."""


@dataclass(frozen=True)
class Limits:
    """The limits of a volume.

    Numbers of voxels and lengths are checked on the header, before memory is allocated.

    Attributes:
        max_voxels: Voxels of a volume.
        max_axis: Voxels along one axis.
        max_inflated_mb: Size of the voxels once decompressed, MiB.
        max_header_mb: Size of a header with its extensions, MiB.
        min_spacing: Shortest edge of a voxel, mm.
        max_spacing: Longest edge of a voxel, mm.
        max_extent: Longest edge of the volume, mm.
    """

    max_voxels: int = 512 * 512 * 2048
    max_axis: int = 4096
    max_inflated_mb: int = 4096
    max_header_mb: int = 16
    min_spacing: float = 1e-3
    max_spacing: float = 250.0
    max_extent: float = 4000.0

    def check_shape(self, shape: Sequence[int], itemsize: int) -> None:
        """Check the size that a header claims.

        Args:
            shape: Voxels along each axis, Python integers.
            itemsize: Bytes of a voxel.

        Raises:
            VolumeError: It is not 3D, an axis has fewer than two voxels, or there are more than allowed.
        """
        if len(shape) != 3:
            size = " x ".join(map(str, shape))
            raise VolumeError(f"it has {len(shape)} dimensions ({size}): one scalar 3D volume is needed")
        size = " x ".join(map(str, shape))
        if min(shape) < 2:
            raise VolumeError(f"its size is {size}: a volume needs at least two voxels along each axis")
        if max(shape) > self.max_axis:
            raise VolumeError(f"its header claims {size} voxels: at most {self.max_axis} are allowed along an axis")
        voxels = shape[0] * shape[1] * shape[2]
        if voxels > self.max_voxels:
            raise VolumeError(f"its header claims {size} voxels: at most {self.max_voxels} are allowed; crop it")
        if voxels * itemsize > self.max_inflated_mb * MIB:
            claimed = voxels * itemsize // MIB
            raise VolumeError(
                f"its header claims {claimed} MiB of voxels: at most {self.max_inflated_mb} MiB are allowed; "
                "crop it, or store it as 16-bit integers"
            )

    def check_spacing(self, shape: Sequence[int], spacing: Sequence[float] | np.ndarray) -> None:
        """Check the size of the voxels and of the volume in the world.

        Args:
            shape: Voxels along each axis.
            spacing: Edges of a voxel, mm.

        Raises:
            VolumeError: A voxel or the volume is smaller or larger than any scanner's.
        """
        edges = np.abs(np.asarray(spacing, float))
        size = " x ".join(f"{edge:.4g}" for edge in edges)
        fix = "correct the voxel size in its header and store it again"
        if not np.isfinite(edges).all() or edges.min() < self.min_spacing or edges.max() > self.max_spacing:
            raise VolumeError(
                f"its voxels are {size} mm: {self.min_spacing:g} to {self.max_spacing:g} mm are allowed; {fix}"
            )
        extent = float((edges * np.asarray(shape, float)).max())
        if extent > self.max_extent:
            raise VolumeError(
                f"it is {extent / 1000:.1f} m long (voxels of {size} mm): at most {self.max_extent / 1000:g} m are "
                f"allowed; {fix}"
            )

    def check_before_reading(self, shape: Sequence[int], spacing: Sequence[float] | np.ndarray) -> None:
        """Check the size in the world of a volume whose voxels take much memory.

        A small volume is opened with any size, so that its header can be corrected; functions that compute on it call
        `Volume.require_plausible_size`.

        Args:
            shape: Voxels along each axis.
            spacing: Edges of a voxel, mm.

        Raises:
            VolumeError: As in `check_spacing`.
        """
        if math.prod(shape) > SMALL_VOXELS:
            self.check_spacing(shape, spacing)


_default = Limits()


def default_limits() -> Limits:
    """Return the limits that apply if a caller gives none."""
    return _default


def set_default_limits(limits: Limits) -> None:
    """Replace the limits that apply if a caller gives none, as the server does at its start."""
    global _default
    _default = limits
