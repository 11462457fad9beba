"""What the values of a label map are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sam3d_label.errors import VolumeError

SLICER = "user-"
"""How the client_id of Slicer begins."""


def name_values(present: Sequence[int], info: Mapping[str, Any], labels: Sequence[str]) -> dict[int, str]:
    """The names of a label map's values.

    Without any `label_info` the values count the app's labels, or stand for its only one. Otherwise a value is the
    `idx` of its structure or its place in the list, counted from 1: Slicer sends an `idx` that also counts segments
    which the map leaves out, so that there the place is right wherever the two differ.

    Args:
        present: Values in the label map, but 0.
        info: What was saved with the label.
        labels: The app's.

    Raises:
        VolumeError: A value has no name.
    """
    listed = list(_listed(info))
    if not listed and len(labels) == 1:
        return dict.fromkeys(present, labels[0])
    by_place = dict(enumerate((name for name, _ in listed), start=1)) or dict(enumerate(labels, start=1))
    by_idx = {idx: name for name, idx in listed if idx is not None}
    from_slicer = str(info.get("client_id", "")).startswith(SLICER)
    ways = [by_place, by_idx] if from_slicer else [by_idx, by_place]
    for names in ways:
        if set(present) <= names.keys():
            return {value: names[value] for value in present}
    known = ", ".join(f"{value} = {name}" for value, name in (by_idx or by_place).items())
    raise VolumeError(f"the label holds the values {', '.join(map(str, present))}, but the names of {known}")


def _listed(info: Mapping[str, Any]) -> Iterator[tuple[str, int | None]]:
    """Name and `idx`, where it is one, of each structure in `label_info`; it may hold anything that a client sends."""
    given = info.get("label_info") if isinstance(info, Mapping) else None
    for entry in given if isinstance(given, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
            idx = entry.get("idx")
            yield entry["name"], idx if isinstance(idx, int) and not isinstance(idx, bool) else None
