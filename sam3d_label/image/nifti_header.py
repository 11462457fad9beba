"""NIfTI-1 and NIfTI-2 headers of single files."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from sam3d_label.errors import VolumeError
from sam3d_label.image.header import DETACHED_FIX, Header

LONGEST = 544
"""Bytes that hold the longer of the two headers."""

SINGLE = {348: b"n+1\0", 540: b"n+2\0\r\n\x1a\n"}
PAIR = {348: b"ni1\0", 540: b"ni2\0\r\n\x1a\n"}
CODES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
UNUSABLE = {
    1: "single bits",
    32: "complex numbers",
    128: "RGB colours",
    1536: "128-bit floats",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "RGBA colours",
}
MODALITY = re.compile(r"DICOM modality ([A-Z]{2})")
"""Description in the header of a file that was made from a DICOM series."""

MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Code of `xyzt_units` to millimetres of one unit; 0 is unknown, which everybody reads as millimetres."""


def is_nifti(head: bytes) -> bool:
    """Return whether a file starts like NIfTI or ANALYZE."""
    return len(head) >= 4 and _order_and_size(head) is not None


def _order_and_size(head: bytes) -> tuple[str, int] | None:
    for order in "<>":
        (size,) = struct.unpack(order + "i", head[:4])
        if size in SINGLE:
            return order, size
    return None


def parse(head: bytes, compressed: bool, max_bytes: int) -> Header:
    """Parse a NIfTI header.

    Args:
        head: The first `LONGEST` bytes of the file, decompressed.
        compressed: Whether the file is a .nii.gz.
        max_bytes: Offset at which the voxels must have begun.

    Raises:
        VolumeError: It is damaged, describes no scalar 3D volume, or its voxels are in another file.
    """
    found = _order_and_size(head)
    assert found is not None
    order, size = found
    if len(head) < size:
        raise VolumeError(f"it ends after {len(head)} bytes of its header: copy or export it again")
    raw = raw_header(head[:size])
    magic = head[344:348] if size == 348 else head[4:12]
    if magic == PAIR[size] or (size == 348 and not magic.strip(b"\0")):
        raise VolumeError(f"its header refers to another file (.img) for its values, {DETACHED_FIX}")
    if magic != SINGLE[size]:
        raise VolumeError(f"its NIfTI header is damaged (magic {magic!r}): export it again")
    kind = _dtype(int(raw["datatype"]), int(raw["bitpix"]))
    slope, intercept = _scaling(float(raw["scl_slope"]), float(raw["scl_inter"]))
    return Header(
        format="NIfTI",
        shape=_shape([int(n) for n in raw["dim"]]),
        dtype=np.dtype(order + kind),
        offset=_offset(float(raw["vox_offset"]), size + 4, max_bytes),
        encoding="gzip" if compressed else "raw",
        whole=compressed,
        slope=slope,
        intercept=intercept,
        block=head[:size],
    )


def raw_header(block: bytes) -> nib.Nifti1Header:
    """Return the fields of a header block, in either byte order."""
    kind = nib.Nifti1Header if len(block) == 348 else nib.Nifti2Header
    return kind(block, check=False)


def _dtype(code: int, bits: int) -> str:
    if code in UNUSABLE:
        raise VolumeError(f"its voxels are {UNUSABLE[code]}: store one number of at most 64 bits for each voxel")
    if code not in CODES:
        raise VolumeError(f"its header names an unknown voxel type ({code}): export it again")
    if bits != 8 * np.dtype(CODES[code]).itemsize:
        raise VolumeError(f"its header contradicts itself: type {code} with {bits} bits a voxel; export it again")
    return CODES[code]


def _shape(dim: list[int]) -> tuple[int, ...]:
    if not 1 <= dim[0] <= 7:
        raise VolumeError(f"its header claims {dim[0]} dimensions: export it again")
    sides = dim[1 : dim[0] + 1]
    if min(sides) < 1:
        raise VolumeError(f"its header claims a size of {sides}: every axis needs at least one voxel; export it again")
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    return tuple(sides)


def _offset(offset: float, least: int, most: int) -> int:
    if not math.isfinite(offset) or offset < least or offset != int(offset):
        raise VolumeError(f"its header puts the voxels at byte {offset:g}, inside the header: export it again")
    if offset > most:
        raise VolumeError(f"its header puts the voxels at byte {offset:g}: at most {most} bytes may come before them")
    return int(offset)


def _scaling(slope: float, intercept: float) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0, NaN or infinity means that the stored values are the intensities."""
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(intercept):
        raise VolumeError(f"its scl_inter is {intercept}: set it to a number, or set scl_slope to 0")
    return slope, intercept


@dataclass(frozen=True)
class Forms:
    """Geometry of a NIfTI header: sform, qform, voxel size and unit, exactly as stored.

    Programs differ in which of the forms they use. A mask with the same forms as its image is where the image is in
    each of them.
    """

    block: bytes

    FIELDS = (
        *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
        *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
    )

    @property
    def affine(self) -> np.ndarray:
        """4 x 4, voxel to RAS in mm, as nibabel reads it, but in mm whatever the unit."""
        affine = np.array(raw_header(self.block).get_best_affine(), float)
        affine[:3] *= self.unit
        return affine

    @property
    def modality(self) -> str | None:
        """DICOM modality, where `MODALITY` is the header's description."""
        match = MODALITY.fullmatch(bytes(raw_header(self.block)["descrip"]).strip(b"\0 ").decode("latin-1"))
        return match[1] if match else None

    @property
    def unit(self) -> float:
        """Millimetres of one unit of length."""
        code = int(raw_header(self.block)["xyzt_units"]) & 7
        if code not in MILLIMETRES:
            raise VolumeError(f"its unit of length has the unknown code {code}: set xyzt_units to mm (2)")
        return MILLIMETRES[code]

    @classmethod
    def of(cls, block: bytes, shape: tuple[int, ...]) -> Forms:
        """Return the forms of a NIfTI-1 header; of a NIfTI-2 header, the same in a NIfTI-1 header.

        ITK and most programs do not open NIfTI-2. Both versions are therefore placed by the rules for the first, and
        the mask, which is NIfTI-1, is where the image is.

        Raises:
            VolumeError: A number is beyond the range of NIfTI-1.
        """
        if len(block) == 348:
            return cls(block)
        raw, header = raw_header(block), nib.Nifti1Header()
        header.set_data_shape(shape)
        with np.errstate(over="ignore"):
            for name in (*cls.FIELDS, "pixdim", "xyzt_units"):
                stored = np.asarray(raw[name])
                kept = stored.astype(header[name].dtype)
                if not np.array_equal(kept, stored) and (stored.dtype.kind == "i" or not np.isfinite(kept).all()):
                    raise VolumeError(f"its {name} is beyond the range of NIfTI-1: set its geometry again")
                header[name] = kept
        header["descrip"] = bytes(raw["descrip"])[:80]
        return cls(header.binaryblock)

    def check(self) -> None:
        """Raise `VolumeError` unless voxel size and the forms in use are numbers."""
        raw = raw_header(self.block)
        sides = [float(edge) for edge in raw["pixdim"][1:4]]
        if not all(math.isfinite(edge) and edge > 0 for edge in sides):
            raise VolumeError(f"its voxel size (pixdim) is {sides}: set it to the edges of a voxel in mm, all above 0")
        _ = self.unit
        used = [name for name in self.FIELDS if name.startswith("q") and raw["qform_code"] > 0]
        used += [name for name in self.FIELDS if name.startswith("srow") and raw["sform_code"] > 0]
        broken = [name for name in used if not np.isfinite(np.asarray(raw[name], float)).all()]
        if broken:
            raise VolumeError(f"its header holds NaN or infinity in {', '.join(broken)}: set its geometry again")

    def rewrite(self, shape: tuple[int, ...]) -> bytes:
        """Return the start of a NIfTI-1 file, up to its voxels, with these forms and no text."""
        header = nib.Nifti1Header()
        header.set_data_dtype(np.uint8)
        header.set_data_shape(shape)
        self.apply(header)
        header["magic"], header["vox_offset"] = SINGLE[348], 352
        return header.binaryblock + bytes(4)

    def apply(self, header: nib.Nifti1Header) -> None:
        """Copy the forms, the voxel size and the unit of length to another header of nibabel's."""
        raw = raw_header(self.block)
        for name in self.FIELDS:
            header[name] = raw[name]
        header["pixdim"][:4] = raw["pixdim"][:4]
        header["xyzt_units"] = int(raw["xyzt_units"]) & 7
