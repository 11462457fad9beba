"""Records of images and labels whose files are missing, kept until the files are back."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from monailabel.datastore.local import ImageLabelModel, LocalDatastoreModel

from lib.datastores.index import read_index
from sam3d_label.errors import StorageError
from sam3d_label.io import require_format, write_json

logger = logging.getLogger(__name__)
FORMAT = 1
MOST = 10_000
"""Images whose records are kept; the oldest go first."""

PLAIN = {"ts", "name", "checksum", "uploaded"}
"""Keys of a record that are derived from the file itself."""

Objects = Mapping[str, ImageLabelModel]


class RemovedRecords:
    """Records of files that were removed by other means than a request, such as to export them again.

    The names of a label's structures are in its record: without it, a file that comes back would be read with the
    names of the app's labels. A removal by request forgets the record. The caller holds the lock of the folder.

    Args:
        file: Where the records are stored.
        read_only: Whether to keep them until the process ends only.
    """

    def __init__(self, file: Path, read_only: bool = False) -> None:
        self._file, self._read_only = file, read_only
        self._unsaved: dict[str, ImageLabelModel] | None = None

    def read(self) -> dict[str, ImageLabelModel]:
        """Return the records by image; those of a damaged file that can be read.

        Raises:
            NewerFormatError: A newer release has written the file.
        """
        if self._unsaved is not None:
            return dict(self._unsaved)
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return {}
        found = read_index(content)
        require_format(found.format, FORMAT, self._file)
        for line in found.damage:
            logger.warning("gone.json: %s", line)
        return dict(found.index.objects)

    def write(self, records: Objects) -> None:
        """Store the records, or keep them in memory if they cannot be stored."""
        if records == self.read():
            return
        kept = dict(list(records.items())[-MOST:])
        if self._read_only:
            self._unsaved = kept
            return
        model = LocalDatastoreModel(name="", description="", objects=kept)
        objects = json.loads(json.dumps(model.model_dump(include={"objects"}), default=str))
        try:
            write_json(self._file, {"format": FORMAT, **objects})
            self._unsaved = None
        except StorageError as error:
            logger.warning("Records of files that are gone are kept until the server ends: %s", error)
            self._unsaved = kept

    def forget(self, image: str, tag: str | None = None) -> None:
        """Remove the record of a label or, without a tag, of an image and all its labels."""
        records = self.read()
        if image not in records:
            return
        entry = records.pop(image)
        if tag is not None:
            entry.labels.pop(tag, None)
            records[image] = entry
        self.write(records)


def without_files(before: Objects, gone: Objects, found: Objects) -> dict[str, ImageLabelModel]:
    """Return the records worth keeping of files that are not there.

    Args:
        before: Records of the index.
        gone: Records that were kept so far.
        found: Records of the files that are there.
    """
    kept = {}
    for image in [*gone, *(image for image in before if image not in gone)]:
        sources = [records[image] for records in (gone, before) if image in records]
        here = found.get(image)
        labels = {tag: label for entry in sources for tag, label in entry.labels.items()}
        labels = {
            tag: label
            for tag, label in labels.items()
            if label.info.keys() - PLAIN and not (here and tag in here.labels)
        }
        own = sources[-1].image
        if labels or (here is None and own.info.keys() - PLAIN):
            kept[image] = ImageLabelModel(image=own, labels=labels)
    return kept
