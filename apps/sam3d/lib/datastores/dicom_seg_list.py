"""The DICOM SEGs of a server, and the series that they label."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from monailabel.datastore.local import DataModel
from pydantic import model_validator
from pydicom.dataset import Dataset

from lib.datastores.dicom_client import DicomWeb, Series
from lib.datastores.dicom_seg_read import referenced_series, segment_names, written_at
from lib.errors import RemoteError
from sam3d_label.errors import Sam3dError
from sam3d_label.io import Record, RecordPart, read_record, write_record

logger = logging.getLogger(__name__)
NIFTI = ".nii.gz"
SEGMENTATION = "SOPInstanceUID"
"""Key of a label's info with the DICOM SEG that it was sent as."""


class _SegId(RecordPart):
    """Where a DICOM SEG is on the server, under DICOM's names."""

    SOPInstanceUID: str
    SeriesInstanceUID: str
    StudyInstanceUID: str


class LabelSeg(_SegId):
    """The DICOM SEG of a label, as the label's info has it.

    Attributes:
        ts: When it was written, seconds since 1970.
    """

    ts: int

    @classmethod
    def of(cls, seg: Dataset) -> LabelSeg:
        """Describe a SEG."""
        return cls(
            SOPInstanceUID=str(seg.SOPInstanceUID),
            SeriesInstanceUID=str(seg.SeriesInstanceUID),
            StudyInstanceUID=str(seg.StudyInstanceUID),
            ts=seconds(written_at(seg)),
        )


class SegInstance(_SegId):
    """A DICOM SEG of the list.

    Attributes:
        at: When it was written, YYYYMMDDHHMMSS.ffffff; empty if unknown.
        images: SeriesInstanceUIDs of the images on which it was drawn.
        names: Names of its segments by number.
    """

    at: str
    images: tuple[str, ...]
    names: dict[int, str]

    def label(self) -> LabelSeg:
        """Return what the info of a label keeps of it."""
        return LabelSeg.model_validate({**self.model_dump(), "ts": seconds(self.at)})


class SegSeries(RecordPart):
    """A series of DICOM SEGs.

    Attributes:
        count: Number of its instances as the server lists it; None where the server does not say.
        instances: Those that can be read.
    """

    count: int | None
    instances: tuple[SegInstance, ...]


class KnownSegs(Record):
    """The list as it is stored.

    Attributes:
        series: Series of DICOM SEGs by SeriesInstanceUID.
    """

    series: dict[str, SegSeries]

    @model_validator(mode="before")
    @classmethod
    def _series_alone(cls, content: object) -> object:
        """Accept the files of older releases, which are the series alone."""
        return {"series": content} if isinstance(content, dict) and "series" not in content else content


class SegList:
    """The series that the DICOM SEGs of a server label; each is requested once.

    Args:
        file: Where that is kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, SegSeries] = {}

    def update(self, server: DicomWeb) -> None:
        """Request the metadata of new SEGs, and forget removed ones.

        Raises:
            RemoteError: The server does not answer.
        """
        self._known = self._read()
        listed = {series.uid: series for series in server.series("SEG")}
        new = [series for series in listed.values() if not self._is_known(series)]
        gone = self._known.keys() - listed.keys()
        for series in new:
            self._known[series.uid] = SegSeries(count=series.instances, instances=tuple(_instances(server, series)))
        for uid in gone:
            del self._known[uid]
        if new or gone:
            write_record(self._file, KnownSegs(series=self._known), indent=None)

    def newest(self, images: Iterable[str]) -> dict[str, SegInstance]:
        """Return the last written SEG of each of some images that has one."""
        found: dict[str, SegInstance] = {}
        for seg in sorted((seg for series in self._known.values() for seg in series.instances), key=lambda seg: seg.at):
            found |= {image: seg for image in images if image in seg.images}
        return found

    def find(self, series: str, image: str) -> SegInstance | None:
        """Return the last written SEG of a series, when it was drawn on an image."""
        known = self._known.get(series)
        drawn = [seg for seg in known.instances if image in seg.images] if known else []
        return max(reversed(drawn), key=lambda seg: seg.at, default=None)

    def count(self, study: str) -> int:
        """Return how many series of DICOM SEGs a study has."""
        return sum(any(seg.StudyInstanceUID == study for seg in series.instances) for series in self._known.values())

    def _is_known(self, series: Series) -> bool:
        known = self._known.get(series.uid)
        return known is not None and known.count == series.instances

    def _read(self) -> dict[str, SegSeries]:
        """Read the list with the changes of other processes."""
        try:
            known = read_record(KnownSegs, self._file)
        except Sam3dError:
            logger.warning(f"{self._file} cannot be read: the server is asked again")
            known = None
        return known.series if known else {}


def _instances(server: DicomWeb, series: Series) -> Iterator[SegInstance]:
    try:
        headers = server.metadata(series)
    except RemoteError as error:
        if error.status == 503:
            raise
        logger.warning(f"DICOM SEG {series.uid} is left out: {error}")
        return
    for header in headers:
        yield SegInstance(
            SOPInstanceUID=str(header.SOPInstanceUID),
            SeriesInstanceUID=series.uid,
            StudyInstanceUID=series.study,
            at=written_at(header),
            images=tuple(referenced_series(header)),
            names=segment_names(header),
        )


def seg_label(image_id: str, seg: LabelSeg, names: Mapping[int, str]) -> DataModel:
    """Return a label that is stored on the server as a SEG.

    Its file here has the SEG's UID in its name: what it holds never changes.
    """
    ext = f".{seg.SOPInstanceUID}{NIFTI}"
    listed = [{"name": name, "idx": number} for number, name in sorted(names.items())]
    return DataModel(ext=ext, info={**seg.model_dump(), "label_info": listed, "name": image_id + ext})


def seconds(written: str) -> int:
    """Return the seconds since 1970 of a local YYYYMMDDHHMMSS; 0 if it is invalid."""
    try:
        return int(datetime.strptime(written[:14], "%Y%m%d%H%M%S").timestamp())
    except ValueError:
        return 0
