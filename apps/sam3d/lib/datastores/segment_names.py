"""Names of the values in a `.seg.nrrd` of Slicer, which has its own numbers of segments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sam3d_label.errors import VolumeError
from sam3d_label.image.labels import as_label, structures
from sam3d_label.image.limits import MIB, default_limits
from sam3d_label.image.sniff import read_header
from sam3d_label.image.volume import Volume
from sam3d_label.studies.label_names import name_values, normal_name

SEGMENT = re.compile(r"(Segment\d+)_LabelValue")


def check_names(file: str, label: Volume, info: Mapping[str, object]) -> None:
    """Compare the names in a label file, if it has any, with those in the request.

    Args:
        file: The label's.
        label: What it holds.
        info: What was sent, with `label_info`.

    Raises:
        VolumeError: A value has two names.
    """
    names = names_in(file) if file.lower().endswith(".nrrd") and info.get("label_info") else {}
    if not names:
        return
    sent = name_values(structures(as_label(label)), info, ())
    for value, name in sent.items():
        if names.get(value, name) != name:
            raise VolumeError(
                f"The label's file calls {value} {names[value]!r}, the request calls it {name!r}: in Slicer's settings "
                "for MONAI Label, set File Extension to .nii.gz"
            )


def names_in(file: str) -> dict[int, str]:
    """Return the names of segments by their value, as in the header of an NRRD file; empty where it names none."""
    limits = default_limits()
    with open(file, "rb") as opened:
        metadata = read_header(opened, Path(file).name, limits.max_header_mb * MIB).metadata
    found = {}
    for key, value in metadata.items():
        match = SEGMENT.fullmatch(key)
        if match and value.isdigit() and f"{match[1]}_Name" in metadata:
            found[int(value)] = normal_name(metadata[f"{match[1]}_Name"])
    return found
