"""NRRD headers, attached to their voxels."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from sam3d_label.errors import VolumeError
from sam3d_label.image.header import DETACHED_FIX, Encoding, Header

MAGIC = re.compile(rb"NRRD000[1-6]\r?\n")
END = re.compile(rb"\r?\n\r?\n")
TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
ENCODINGS: Mapping[str, Encoding] = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}


def parse(start: bytes) -> Header:
    """What an NRRD header claims.

    Args:
        start: The start of the file, with the whole header.

    Raises:
        VolumeError: It is damaged, or its voxels are in another file.
    """
    end = END.search(start)
    text = start[: end.start()] if end else start
    fields, metadata = _lines(text)
    if end is None:
        raise VolumeError("its header has no end (an empty line), so no voxels follow: store it in one file")
    if fields.get("type") == "block" or "type" not in fields:
        raise VolumeError("its header names no type of number for the voxels: export it again")
    kind = next((kind for kind, names in TYPES.items() if fields["type"].lower() in names), None)
    if kind is None:
        raise VolumeError(f"its header names an unknown voxel type {fields['type'][:40]!r}: export it again")
    encoding = fields.get("encoding", "").lower()
    if encoding not in ENCODINGS:
        raise VolumeError(f"its encoding is {encoding[:40]!r}: store it as raw, gzip or bzip2")
    return Header(
        format="NRRD",
        shape=_shape(fields),
        dtype=np.dtype(_order(fields, kind) + kind),
        offset=end.end(),
        encoding=ENCODINGS[encoding],
        fields=fields,
        metadata=metadata,
    )


def _lines(text: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """Fields by their name without spaces, in lower case, and key-value pairs."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        decoded = text.decode("latin-1")
    fields: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for number, line in enumerate(re.split(r"\r\n|\n|\r", decoded)[1:], start=2):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        normalised = re.sub(r"[^a-z]", "", name.lower())
        if normalised == "datafile":
            raise VolumeError(f"its header refers to other files for its values, {DETACHED_FIX}")
        if not colon or (not line.isprintable() and "\t" not in line):
            raise VolumeError(f"line {number} of its header is not NRRD: export it again")
        if value.startswith("="):
            metadata[name] = value[1:].replace("\\n", "\n").replace("\\\\", "\\")
            continue
        if normalised in fields:
            raise VolumeError(f"its header has two lines {name.strip()[:40]!r}: remove one")
        fields[normalised] = value.strip()
    return fields, metadata


def _shape(fields: Mapping[str, str]) -> tuple[int, ...]:
    try:
        dimension = int(fields["dimension"])
        sizes = tuple(int(size) for size in fields["sizes"].split())
    except (KeyError, ValueError):
        raise VolumeError("its header has no dimension or sizes that are whole numbers: export it again") from None
    if len(sizes) != dimension:
        raise VolumeError(f"its header claims {dimension} dimensions, but {len(sizes)} sizes: export it again")
    if min(sizes) < 1:
        raise VolumeError(f"its header claims a size of {list(sizes)}: every axis needs a voxel; export it again")
    skips = [fields.get(name, "0") for name in ("lineskip", "byteskip")]
    if any(skip != "0" for skip in skips):
        raise VolumeError("its header skips bytes before the voxels (line skip, byte skip): store it without them")
    return sizes


def _order(fields: Mapping[str, str], kind: str) -> str:
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and np.dtype(kind).itemsize > 1:
        raise VolumeError("its header does not say whether its voxels are little or big endian: export it again")
    return order or "|"


def check_geometry(fields: Mapping[str, str]) -> None:
    """Raise `VolumeError` unless a header says how large the voxels are, in millimetres."""
    directions = fields.get("spacedirections", "")
    if not directions and not fields.get("spacings"):
        raise VolumeError("its header has no voxel size (space directions or spacings): export it again with one")
    sizes = (fields.get("spacings") or "") if not directions else ""
    if "nan" in (sizes + directions).lower() or "none" in directions.lower():
        raise VolumeError("its header gives no voxel size for one of the axes: export it again with one")
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", "") + fields.get("units", ""))
    if unknown := sorted(
        {unit for unit in units if unit.strip().lower() not in ("mm", "", "millimeter", "millimetre")}
    ):
        raise VolumeError(f"its unit of length is {', '.join(unknown)[:60]}: store it in mm")
