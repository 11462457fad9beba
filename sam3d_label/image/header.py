"""Headers of image files: format, size, voxel type, and position of the voxels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from sam3d_label.errors import VolumeError

FORMATS: Mapping[str, str] = {".nii.gz": "NIfTI", ".nii": "NIfTI", ".nrrd": "NRRD", ".mha": "MetaImage"}
"""File name suffix to format; each holds header and voxels in one file."""

DETACHED = (".nhdr", ".mhd", ".hdr", ".img", ".hdr.gz", ".img.gz", ".raw", ".raw.gz", ".zraw")
"""Suffixes of formats that spread a volume over several files."""

DETACHED_FIX = "but a volume must be one file: store it as .nii.gz or .nrrd with the voxels in it"

Encoding = Literal["raw", "gzip", "zlib", "bzip2"]


NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
LONGEST_NUMBER = 64
"""Characters of a number in a text header; programs write at most 25."""

MOST_LINES = 100_000
"""Lines of a text header."""


@dataclass(frozen=True)
class Header:
    """A volume as its header describes it.

    Attributes:
        format: NIfTI, NRRD or MetaImage.
        shape: Voxels along each axis, the fastest axis first; trailing axes of length one are left out.
        dtype: Type of a stored voxel, with its byte order.
        offset: Bytes before the first voxel: in the file, or in the decompressed file where `whole` is set.
        encoding: How the voxels are compressed.
        whole: The whole file is compressed, its header included (.nii.gz).
        slope: Factor from stored values to intensities.
        intercept: Intensity of a stored value of 0.
        fields: Fields of a text header by normalised name.
        metadata: Key-value pairs of a text header.
        block: The header itself, as stored.
    """

    format: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    encoding: Encoding = "raw"
    whole: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    fields: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    block: bytes = b""

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels, decompressed."""
        count = self.dtype.itemsize
        for side in self.shape:
            count *= side
        return count


def suffix_of(name: str) -> str:
    """Return the lower-case suffix that names a file's format or, if unknown, everything after the first dot."""
    lower = name.lower()
    known = sorted((*FORMATS, *DETACHED), key=len, reverse=True)
    return next((suffix for suffix in known if lower.endswith(suffix)), Path(lower).suffix)


def check_suffix(name: str) -> str:
    """Return the format of a file by its name.

    Raises:
        VolumeError: The format is unknown, or spreads a volume over several files.
    """
    suffix = suffix_of(name)
    if suffix in DETACHED:
        raise VolumeError(f"files of type {suffix} refer to other files for their values, {DETACHED_FIX}")
    if suffix not in FORMATS:
        raise VolumeError(f"its name must end in {', '.join(FORMATS)}; a DICOM series is given as its folder")
    return FORMATS[suffix]


def numbers(text: str, field_name: str, count: int) -> list[float]:
    """Return the numbers in a field of a text header, with spaces between them.

    Raises:
        VolumeError: There are more or fewer, or one is not a finite number of common length.
    """
    parts = text.split(maxsplit=count)
    if len(parts) == count and all(len(part) <= LONGEST_NUMBER and NUMBER.fullmatch(part) for part in parts):
        values = [float(part) for part in parts]
        if all(map(math.isfinite, values)):
            return values
    raise VolumeError(f"its header's {field_name} is not {count} finite numbers ({text[:40]!r}): export it again")
