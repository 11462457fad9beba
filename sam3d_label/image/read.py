"""Read and verify one image file: voxels and geometry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sam3d_label.errors import VolumeError
from sam3d_label.image import metaimage_header, nrrd_header
from sam3d_label.image.header import Header
from sam3d_label.image.itk_geometry import itk_affine
from sam3d_label.image.limits import MIB, Limits
from sam3d_label.image.nifti_header import Forms
from sam3d_label.image.sniff import read_header
from sam3d_label.image.verify import require_possible, voxel_pieces

PIECE = 2**23
"""Bytes of voxels that are decompressed at a time, about."""

SAME_SIZE = 0.01
"""Share by which two voxel sizes in one header may differ."""


@dataclass(frozen=True)
class StoredImage:
    """The content of a file.

    Attributes:
        array: Intensities (I, J, K), float32.
        affine: 4 x 4, voxel to RAS in mm, where ITK and Slicer place the voxels.
        forms: The sform and qform of a NIfTI header; None for other formats.
        modality: DICOM modality, such as CT or MR; None if the file does not contain it.
        digest: Hash of the stored voxels, their type and scale; None if it was not computed.
    """

    array: np.ndarray
    affine: np.ndarray
    forms: Forms | None = None
    modality: str | None = None
    digest: bytes | None = None


def read_image(path: Path, limits: Limits) -> StoredImage:
    """Read a NIfTI, NRRD or MetaImage file whose voxels are in the file itself.

    Raises:
        VolumeError: It is damaged, too large, of another format, refers to another file, or its geometry is unknown.
    """
    with path.open("rb") as file:
        header = read_header(file, path.name, limits.max_header_mb * MIB)
        limits.check_shape(header.shape, header.dtype.itemsize)
        require_possible(file, header)
        affine, forms = _geometry(header)
        limits.check_before_reading(header.shape, np.linalg.norm(affine[:3, :3], axis=0))
        array, digest = _voxels(file, header)
        return StoredImage(array, affine, forms, forms.modality if forms else None, digest)


def _voxels(file: BinaryIO, header: Header) -> tuple[np.ndarray, bytes]:
    """Return intensities (I, J, K), float32, C order, and a hash of them as stored.

    They are decompressed, hashed, scaled and turned a few slices at a time.
    """
    i, j, k = header.shape
    slice_bytes = i * j * header.dtype.itemsize
    slices = max(1, PIECE // slice_bytes)
    scaled = (header.slope, header.intercept) != (1.0, 0.0)
    # Not np.empty, which asks for huge pages: a virtual machine can take a second to provide 420 MB of them.
    array = np.zeros((i, j, k), np.float32)
    digest = hashlib.blake2b(repr((header.dtype.str, header.slope, header.intercept)).encode(), digest_size=16)
    with np.errstate(over="ignore", invalid="ignore"):  # Volume counts non-finite values
        for number, piece in enumerate(one_ahead(voxel_pieces(file, header, slices * slice_bytes))):
            digest.update(piece)
            start = number * slices
            values = np.frombuffer(piece, header.dtype).reshape(-1, j, i)
            if scaled:
                values = values * np.float64(header.slope) + np.float64(header.intercept)
            turned = np.ascontiguousarray(values.transpose(1, 2, 0))  # in two steps, in two thirds of the time
            array[:, :, start : start + len(values)] = turned.transpose(1, 0, 2)
    return array, digest.digest()


def one_ahead(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield pieces while a thread already makes the next one; its errors are raised in place of that piece."""
    with ThreadPoolExecutor(1) as thread:
        made = thread.submit(next, pieces, None)
        while (piece := made.result()) is not None:
            made = thread.submit(next, pieces, None)
            yield piece


def _geometry(header: Header) -> tuple[np.ndarray, Forms | None]:
    """Return the affine (4, 4), voxel i, j, k to RAS mm, as ITK reads it, and the forms of a NIfTI header."""
    if header.format == "NIfTI":
        return _nifti_geometry(header)
    module = {"NRRD": nrrd_header, "MetaImage": metaimage_header}[header.format]
    affine = itk_affine(header, module.rewrite(header))
    if affine is None:
        raise VolumeError("ITK cannot read its geometry: export it again")
    return affine, None


def _nifti_geometry(header: Header) -> tuple[np.ndarray, Forms]:
    forms = Forms.of(header.block, header.shape)
    forms.check()
    try:
        own = forms.affine
    except VolumeError:
        raise
    except Exception as error:
        raise VolumeError(f"its geometry cannot be read ({error}): set its qform and sform again") from error
    affine = itk_affine(header, forms.rewrite(header.shape))
    if affine is None:  # ITK takes no sheared axes, as those of a tilted gantry
        return own, forms
    sizes = [np.linalg.norm(a[:3, :3], axis=0) for a in (affine, own)]
    if not np.allclose(sizes[0], sizes[1], rtol=SAME_SIZE):
        texts = [" x ".join(f"{edge:.4g}" for edge in size) for size in sizes]
        raise VolumeError(
            f"its header gives two voxel sizes, {texts[0]} mm and {texts[1]} mm: set pixdim and sform alike"
        )
    return affine, forms
