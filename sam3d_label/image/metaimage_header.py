"""MetaImage headers, attached to their voxels (.mha)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from sam3d_label.errors import VolumeError
from sam3d_label.image.header import DETACHED_FIX, MOST_LINES, Header, numbers

MAGIC = re.compile(rb"\s*(?:ObjectType|Comment|NDims|ObjectSubType)\s*=")
LINE = re.compile(rb"[^\n]*\n")
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}

GEOMETRY = {
    **dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), 9),
    **dict.fromkeys(("Offset", "Position", "Origin", "ElementSpacing", "ElementSize"), 3),
}
"""Fields that place the voxels, and how many numbers each has."""


def parse(start: bytes) -> Header:
    """Parse a MetaImage header.

    Args:
        start: The start of the file, with the whole header.

    Raises:
        VolumeError: It is damaged, or its voxels are in another file.
    """
    fields, offset = _lines(start)
    if fields["ElementDataFile"].upper() != "LOCAL":
        raise VolumeError(f"its header refers to other files for its values, {DETACHED_FIX}")
    if fields.get("ObjectType", "Image").lower() != "image":
        raise VolumeError("its header describes no image (ObjectType): export it again")
    if _number(fields, "ElementNumberOfChannels", "1") != 1:
        raise VolumeError("it has several components a voxel: store one number for each voxel")
    if not _is_true(fields, "BinaryData", "True"):
        raise VolumeError("its voxels are written as text: store them as binary data")
    if fields.get("HeaderSize", "0") != "0":
        raise VolumeError("its header skips bytes before the voxels (HeaderSize): store it without that")
    scale = fields.get("ElementToIntensityFunctionSlope", "1"), fields.get("ElementToIntensityFunctionOffset", "0")
    if [_float(part) for part in scale] != [1.0, 0.0]:
        raise VolumeError("its header rescales intensities, which programs ignore: store the intensities themselves")
    kind = TYPES.get(fields.get("ElementType", ""))
    if kind is None:
        raise VolumeError(
            f"its header names an unknown voxel type {fields.get('ElementType', '')[:40]!r}: export it again"
        )
    most_significant_first = _is_true(fields, "BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
    return Header(
        format="MetaImage",
        shape=_shape(fields),
        dtype=np.dtype((">" if most_significant_first else "<") + kind),
        offset=offset,
        encoding="zlib" if _is_true(fields, "CompressedData", "False") else "raw",
        fields=fields,
    )


def _lines(start: bytes) -> tuple[dict[str, str], int]:
    """Return the fields by name, and the offset of the voxels, bytes."""
    fields: dict[str, str] = {}
    for number, match in enumerate(LINE.finditer(start)):
        if number >= MOST_LINES:
            raise VolumeError(f"its header has more than {MOST_LINES} lines: export it again")
        text = match[0].decode("latin-1").strip()
        if not text:
            continue
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or ":" in name or "\r" in text or (not text.isprintable() and "\t" not in text):
            raise VolumeError("its header is not MetaImage: export it again")
        if name in fields:
            raise VolumeError(f"its header has two lines {name[:40]!r}: remove one")
        fields[name] = value
        if name == "ElementDataFile":
            return fields, match.end()
    raise VolumeError("its header has no end (ElementDataFile = LOCAL): export it again")


def _shape(fields: Mapping[str, str]) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in fields.get("DimSize", "").split())
    except ValueError:
        sizes = ()
    if len(sizes) != _number(fields, "NDims", "0") or not sizes or min(sizes) < 1:
        raise VolumeError("its header has no valid size (NDims, DimSize): export it again")
    return sizes


def _number(fields: Mapping[str, str], name: str, default: str) -> int:
    try:
        return int(fields.get(name, default))
    except ValueError:
        raise VolumeError(f"its header's {name} is no whole number: export it again") from None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _is_true(fields: Mapping[str, str], name: str, default: str) -> bool:
    return fields.get(name, default).strip().lower() in ("true", "t", "1")


def rewrite(header: Header) -> bytes:
    """Return a MetaImage header with the same geometry and nothing else, every value of it checked.

    Raises:
        VolumeError: The header has no voxel size, or a field of its geometry is not a number.
    """
    fields = header.fields
    if not {"ElementSpacing", "ElementSize"} & set(fields):
        raise VolumeError("its header has no voxel size (ElementSpacing): export it again with one")
    unit = fields.get("DistanceUnits", "")
    if unit.lower() not in ("", "?", "mm", "unknown"):
        raise VolumeError(f"its unit of length is {unit[:40]} (DistanceUnits): store it in mm")
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True"]
    for name, count in GEOMETRY.items():
        if name in fields:
            lines.append(f"{name} = {' '.join(map(repr, numbers(fields[name], name, count)))}")
    lines += [f"DimSize = {' '.join(map(str, header.shape))}", "ElementType = MET_UCHAR", "ElementDataFile = LOCAL"]
    return "\n".join([*lines, ""]).encode("ascii")
