"""The DICOM SEGs of a server, and the series that they label."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel

from lib.datastores.dicom_client import DicomWeb, Series
from lib.datastores.dicom_seg_read import referenced_series, segment_names, written_at
from lib.errors import RemoteError
from sam3d_label.errors import Sam3dError
from sam3d_label.io import read_object, with_format, write_json

logger = logging.getLogger(__name__)
NIFTI = ".nii.gz"
FORMAT = 1
SEGMENTATION = "SOPInstanceUID"
"""Key of a label's info with the DICOM SEG that it was sent as."""


class SegList:
    """The series that the DICOM SEGs of a server label; each is requested once.

    Args:
        file: Where that is kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, dict[str, Any]] = {}

    def update(self, server: DicomWeb) -> None:
        """Request the metadata of new SEGs, and forget removed ones.

        Raises:
            RemoteError: The server does not answer.
        """
        self._read()
        listed = {seg.uid: seg for seg in server.series("SEG")}
        new = [seg for seg in listed.values() if self._known.get(seg.uid, {}).get("count", "") != seg.instances]
        gone = self._known.keys() - listed.keys()
        for seg in new:
            self._known[seg.uid] = {"count": seg.instances, "instances": list(_instances(server, seg))}
        for uid in gone:
            del self._known[uid]
        if new or gone:
            write_json(self._file, with_format(FORMAT, {"series": self._known}), indent=None)

    def newest(self, images: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the last written SEG of each of some images that has one."""
        found: dict[str, dict[str, Any]] = {}
        for seg in sorted((one for entry in self._known.values() for one in entry["instances"]), key=lambda s: s["at"]):
            found |= {image: seg for image in images if image in seg["images"]}
        return found

    def find(self, series: str, image: str) -> dict[str, Any] | None:
        """Return the last written SEG of a series, when it was drawn on an image."""
        instances = sorted(self._known.get(series, {}).get("instances", []), key=lambda one: str(one["at"]))
        return next((one for one in reversed(instances) if image in one["images"]), None)

    def count(self, study: str) -> int:
        """Return how many series of DICOM SEGs a study has."""
        entries = (entry["instances"] for entry in self._known.values())
        return sum(any(one["StudyInstanceUID"] == study for one in instances) for instances in entries)

    def _read(self) -> None:
        """Read the changes of other processes."""
        try:
            content: dict[str, Any] = read_object(self._file, FORMAT)
            self._known = content.get("series", content)  # older releases wrote the series alone
        except Sam3dError:
            logger.warning(f"{self._file} cannot be read: the server is asked again")
            self._known = {}


def _instances(server: DicomWeb, series: Series) -> Iterable[dict[str, Any]]:
    try:
        headers = server.metadata(series)
    except RemoteError as error:
        if error.status == 503:
            raise
        logger.warning(f"DICOM SEG {series.uid} is left out: {error}")
        return
    for header in headers:
        yield {
            SEGMENTATION: str(header.SOPInstanceUID),
            "SeriesInstanceUID": series.uid,
            "StudyInstanceUID": series.study,
            "at": written_at(header),
            "images": referenced_series(header),
            "names": segment_names(header),
        }


def seg_label(image_id: str, info: Mapping[str, Any], names: Mapping[int, str]) -> DataModel:
    """Return a label that is stored on the server as a SEG.

    Its file here has the SEG's UID in its name: what it holds never changes.
    """
    ext = f".{info[SEGMENTATION]}{NIFTI}"
    kept = {key: info[key] for key in (SEGMENTATION, "SeriesInstanceUID", "StudyInstanceUID", "ts")}
    listed = [{"name": name, "idx": number} for number, name in sorted(names.items())]
    return DataModel(ext=ext, info={**kept, "label_info": listed, "name": image_id + ext})


def seconds(written: str) -> int:
    """Return the seconds since 1970 of a local YYYYMMDDHHMMSS; 0 if it is invalid."""
    try:
        return int(datetime.strptime(written[:14], "%Y%m%d%H%M%S").timestamp())
    except ValueError:
        return 0
