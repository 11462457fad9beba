"""Bring the records of a datastore in line with the files that are in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from monailabel.datastore.local import DataModel, ImageLabelModel
from monailabel.utils.others.generic import file_checksum

from lib.datastores.removed_records import Objects
from sam3d_label.image.listing import FolderContent

CHECKSUM = "checksum"
"""Key of a label's info with the digest of the file that was saved, by which it is found under another name."""


def checksum(file: Path) -> str:
    """Return the digest of a file as it is stored under `CHECKSUM`."""
    return str(file_checksum(str(file)))


class RenamedLabels:
    """Finds the record of a label whose file was renamed.

    Args:
        sources: Earlier records.
        labels: The labels by tag.
        folder_of: Gives the folder of a tag.
    """

    def __init__(
        self, sources: Sequence[Objects], labels: Mapping[str, FolderContent], folder_of: Callable[[str], str]
    ) -> None:
        self._sources, self._labels, self._folder_of = sources, labels, folder_of

    def __call__(self, image: str, tag: str, extension: str) -> dict[str, object]:
        """Return the record for a label that has none; empty for a new label."""
        known = {digest: info for (of, digest), info in self._lost.items() if of == tag}
        if not known:
            return {}
        try:
            return known.get(checksum(Path(self._folder_of(tag), image + extension)), {})
        except OSError:  # it was removed meanwhile
            return {}

    @cached_property
    def _lost(self) -> dict[tuple[str, str], dict[str, object]]:
        """Info of labels whose file is gone, by tag and digest."""
        return {
            (tag, label.info[CHECKSUM]): label.info
            for records in self._sources
            for image, entry in records.items()
            for tag, label in entry.labels.items()
            if CHECKSUM in label.info and not (tag in self._labels and image in self._labels[tag].volumes)
        }


def reconcile(
    sources: Sequence[Objects],
    images: FolderContent,
    labels: Mapping[str, FolderContent],
    renamed: Callable[[str, str, str], dict[str, object]],
    orphan: Callable[[str, str], object],
) -> dict[str, ImageLabelModel]:
    """Return the records of existing images, with those of their existing labels.

    Args:
        sources: Earlier records; what the first that has one says about a file is kept, also where the file has another
            format now.
        images: The images.
        labels: The labels by tag.
        renamed: Returns the record for a label that has none, from image, tag and extension.
        orphan: Called with id and tag of each label that has no image.
    """
    found = {}
    listed = [image for image in sources[0] if image in images.volumes]
    for image in [*listed, *(image for image in sorted(images.volumes) if image not in sources[0])]:
        known = next((records[image].image for records in sources if image in records), None)
        found[image] = ImageLabelModel(image=_record(known, image, images.volumes[image]))
    for tag, listing in labels.items():
        for image, extension in sorted(listing.volumes.items()):
            if image not in found:
                orphan(image, tag)
                continue
            kept = (records[image].labels.get(tag) for records in sources if image in records)
            known = next((label for label in kept if label), None)
            info = renamed(image, tag, extension) if known is None else {}
            found[image].labels[tag] = _record(known, image, extension, info)
    return found


def _record(known: DataModel | None, image: str, extension: str, info: Mapping[str, object] | None = None) -> DataModel:
    name = image + extension
    if known is None:
        return DataModel(ext=extension, info={"ts": int(time.time()), **(info or {}), "name": name})
    return known if known.ext == extension else DataModel(ext=extension, info={**known.info, "name": name})
