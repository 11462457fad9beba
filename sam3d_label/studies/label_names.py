"""Names of the values of a label map."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from sam3d_label.errors import VolumeError
from sam3d_label.image.listing import hidden_character

LONGEST_NAME = 64
"""Characters of a name: what a segment's label in DICOM holds."""

NUMBERS = ("idx", "id")
"""Keys of the value of a structure's voxels, the first that is given counts; Slicer's scribbles send `id`."""

SLICER = "user-"
"""How the client_id of Slicer begins."""


def name_values(present: Sequence[int], info: Mapping[str, object], labels: Sequence[str]) -> dict[int, str]:
    """Return the names of a label map's values.

    Without any `label_info` the values count the app's labels, or stand for its only one. Otherwise a value is the
    `idx` of its structure, or its place in the list, counted from 1, where the structure has none or the map holds
    other values. Slicer sends an `idx` that also counts segments which the map leaves out, so that there the place is
    right wherever the two differ; such numbers count up, also where its client_id is another.

    Args:
        present: Values in the label map, but 0.
        info: What was saved with the label.
        labels: The app's.

    Raises:
        VolumeError: A value has no name, or two names.
    """
    listed = list(_listed(info))
    if not listed and len(labels) == 1:
        return dict.fromkeys(present, labels[0])
    by_place = dict(enumerate((name for name, _ in listed), start=1)) or dict(enumerate(labels, start=1))
    if _from_slicer(info) and set(present) <= by_place.keys():
        return {value: by_place[value] for value in present}
    by_number = _numbered(listed) or by_place
    if set(present) <= by_number.keys():
        return {value: by_number[value] for value in present}
    if set(present) <= by_place.keys():
        two = next((value for value in present if by_number.get(value, by_place[value]) != by_place[value]), None)
        if two is not None and not _count_up(listed):
            raise VolumeError(_two_names(two, by_number[two], by_place[two]))
        return {value: by_place[value] for value in present}
    known = ", ".join(f"{value} = {name}" for value, name in by_number.items())
    raise VolumeError(f"the label holds the values {', '.join(map(str, present))}, but the names of {known}")


def require_one_name(info: Mapping[str, object]) -> None:
    """Check that `label_info` gives no value two names; Slicer's numbers are not checked, since they may be wrong.

    Args:
        info: What a client says about a label.

    Raises:
        VolumeError: It does, or a number is none.
    """
    listed = list(_listed(info))
    if not _from_slicer(info):
        _numbered(listed)


def _numbered(listed: Sequence[tuple[str, int | None]]) -> dict[int, str]:
    """Return the names by value: the number of a structure, or its place where it has none.

    Raises:
        VolumeError: Two structures have the same value.
    """
    names: dict[int, str] = {}
    for place, (name, number) in enumerate(listed, start=1):
        value = place if number is None else number
        if names.setdefault(value, name) != name:
            raise VolumeError(_two_names(value, names[value], name))
    return names


def _count_up(listed: Sequence[tuple[str, int | None]]) -> bool:
    """Return whether every structure has a number, each higher than the one before."""
    numbers = [number for _, number in listed if number is not None]
    return len(numbers) == len(listed) and numbers == sorted(set(numbers))


def _two_names(value: int, one: str, other: str) -> str:
    return (
        f"label_info names the value {value} {one[:LONGEST_NAME]!r} and {other[:LONGEST_NAME]!r}: give each structure"
        " the value of its voxels as idx"
    )


def _from_slicer(info: Mapping[str, object]) -> bool:
    return str(info.get("client_id", "")).startswith(SLICER)


def normal_name(name: str) -> str:
    """Return a name in the composed form of Unicode: systems differ in how they encode an accent."""
    return unicodedata.normalize("NFC", name)


def name_fault(name: str) -> str | None:
    """Say why a text cannot be the name of a structure; None when it can.

    Args:
        name: The text.
    """
    if not name.strip():
        return "it is empty"
    if len(name) > LONGEST_NAME:
        return f"it has {len(name)} characters, at most {LONGEST_NAME} are allowed"
    if reason := hidden_character(name):
        return reason
    if name != name.strip():
        return "remove the space at its beginning or end"
    if "\\" in name:
        return "it holds a backslash, which separates values in DICOM"
    return None


def _listed(info: Mapping[str, object]) -> Iterator[tuple[str, int | None]]:
    """Name and number, where it has one, of each structure in `label_info`; it may hold anything that a client sends.

    Raises:
        VolumeError: A number is none.
    """
    given = info.get("label_info") if isinstance(info, Mapping) else None
    if isinstance(given, Mapping):
        given = [{"name": name, "idx": number} for name, number in given.items()]
    for entry in given if isinstance(given, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
            number = next((entry[key] for key in NUMBERS if entry.get(key) is not None), None)
            name = normal_name(entry["name"])
            yield name, None if number is None else _whole(number, name)


def _whole(number: object, name: str) -> int:
    """Return a whole number, which JSON may hold as such, as 2.0, or as text.

    Raises:
        VolumeError: It is something else.
    """
    if isinstance(number, str) and number.strip().isdecimal():
        return int(number)
    if (
        isinstance(number, int | float)
        and not isinstance(number, bool)
        and math.isfinite(number)
        and number == int(number)
    ):
        return int(number)
    raise VolumeError(
        f"label_info numbers {name!r} as {number!r}: give the value of its voxels, a whole number, as idx"
    )
