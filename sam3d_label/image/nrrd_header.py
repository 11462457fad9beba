"""NRRD headers, attached to their voxels."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from sam3d_label.errors import VolumeError
from sam3d_label.image.header import DETACHED_FIX, MOST_LINES, Encoding, Header, numbers

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

_NAMES = (
    "type,dimension,sizes,endian,encoding,content,number,min,max,labels,units,kinds,centers,centerings,thicknesses,"
    "spacings,space,axis mins,axis maxs,block size,old min,old max,line skip,byte skip,sample units,space dimension,"
    "space units,space origin,space directions,measurement frame"
)
FIELDS = {name.replace(" ", ""): name for name in _NAMES.split(",")}
"""Fields of the format by their name without spaces; some may be written without."""

WORD = re.compile(r"[A-Za-z0-9?-]{1,40}", re.ASCII)
VECTOR = re.compile(r"\(([^()]*)\)\s*")
VOXEL_FIELDS = ("spacings", "axismins", "axismaxs")


def parse(start: bytes) -> Header:
    """Parse an NRRD header.

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
    """Return the fields by their name without spaces, in lower case, and the key-value pairs."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        decoded = text.decode("latin-1")
    fields: dict[str, str] = {}
    metadata: dict[str, str] = {}
    lines = re.split(r"\r\n|\n|\r", decoded, maxsplit=MOST_LINES)
    if len(lines) > MOST_LINES:
        raise VolumeError(f"its header has more than {MOST_LINES} lines: export it again")
    for number, line in enumerate(lines[1:], start=2):
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
        if name.lower() not in (normalised, FIELDS.get(normalised)) or normalised not in FIELDS:
            raise VolumeError(f"line {number} of its header has an unknown field {name[:40]!r}: correct or remove it")
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


def rewrite(header: Header) -> bytes:
    """Return an NRRD header with the same geometry and nothing else, every value of it checked.

    Raises:
        VolumeError: The header has no voxel size in mm, or a field of its geometry is not a number.
    """
    fields = header.fields
    _check_geometry(fields)
    axes = len(header.shape)
    lines = ["NRRD0005", "type: uint8", f"dimension: {axes}", f"sizes: {' '.join(map(str, header.shape))}"]
    lines += [f"{name}: {_words(fields, name)}" for name in ("kinds", "centers", "centerings") if name in fields]
    lines += [
        f"{FIELDS[name]}: {' '.join(map(repr, _numbers_or_nan(fields[name], FIELDS[name], axes)))}"
        for name in VOXEL_FIELDS
        if name in fields
    ]
    if "space" in fields:
        lines.append(f"space: {_words(fields, 'space')}")
    if "spacedimension" in fields:
        lines.append(f"space dimension: {int(numbers(fields['spacedimension'], 'space dimension', 1)[0])}")
    for name in ("spacedirections", "spaceorigin"):
        if name in fields:
            lines.append(f"{FIELDS[name]}: {_vectors(fields[name], FIELDS[name], axes)}")
    return "\n".join([*lines, "encoding: raw", "", ""]).encode("ascii")


def _words(fields: Mapping[str, str], name: str) -> str:
    words = fields[name].split(maxsplit=8)
    if not all(map(WORD.fullmatch, words)):
        raise VolumeError(f"its header's {name} is {fields[name][:40]!r}, which is no {name} of NRRD: export it again")
    return " ".join(words)


def _numbers_or_nan(text: str, name: str, count: int) -> list[float]:
    """Return numbers; NaN for all axes means that the field is not used."""
    if re.fullmatch(r"nan(\s+nan)*", text, re.ASCII | re.IGNORECASE) and len(text.split()) == count:
        return [float("nan")] * count
    return numbers(text, name, count)


def _vectors(text: str, name: str, axes: int) -> str:
    """Return one vector, or one for each axis, with as many numbers as there are axes."""
    vectors = VECTOR.findall(text)
    if len(vectors) not in (1, axes) or VECTOR.sub("", text):
        raise VolumeError(f"its header's {name} is not {name} of {axes} axes ({text[:40]!r}): export it again")
    rows = [numbers(vector.replace(",", " "), name, axes) for vector in vectors]
    return " ".join(f"({','.join(map(repr, row))})" for row in rows)


def _check_geometry(fields: Mapping[str, str]) -> None:
    """Raise `VolumeError` unless a header has the size of the voxels, in millimetres."""
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
