"""The list of the DICOM SEGs of a server, and the file in which it is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset

from lib.datastores.dicom_client import Series
from lib.datastores.dicom_seg_list import SegList

SEG = {
    "SOPInstanceUID": "1.2.3.1",
    "SeriesInstanceUID": "1.2.3",
    "StudyInstanceUID": "1.2",
    "at": "20250102030405.678000",
    "images": ["1.2.9"],
    "names": {"1": "tumor", "2": "cyst"},
}
KNOWN = {"1.2.3": {"count": 1, "instances": [SEG]}}


def server(*listed: Series, headers: Sequence[Any] | None = None) -> Any:
    """A server with these series of SEGs; without headers, no metadata may be requested."""

    def metadata(series: Series) -> Sequence[Any]:
        assert headers is not None, f"{series.uid} is requested again"
        return headers

    return SimpleNamespace(series=lambda modality: listed, metadata=metadata)


def series(instances: int | None = 1) -> Series:
    return Series("1.2.3", "1.2", "SEG", instances, {})


@pytest.mark.parametrize("stored", [{"format": 1, "series": KNOWN}, KNOWN], ids=["0.2", "without a format"])
def test_a_stored_list_is_read_and_nothing_is_requested_again(tmp_path: Path, stored: object) -> None:
    file = tmp_path / "segmentations.json"
    file.write_text(json.dumps(stored))
    segs = SegList(file)
    segs.update(server(series()))
    seg = segs.newest(["1.2.9", "1.2.8"])["1.2.9"]
    assert seg == segs.find("1.2.3", "1.2.9")
    assert seg.names == {1: "tumor", 2: "cyst"}
    assert segs.find("1.2.3", "1.2.8") is None
    assert segs.count("1.2") == 1
    assert json.loads(file.read_text()) == stored


def test_the_list_is_stored_in_the_same_format(tmp_path: Path) -> None:
    file = tmp_path / "segmentations.json"
    header, image = Dataset(), Dataset()
    image.SeriesInstanceUID = "1.2.9"
    header.SOPInstanceUID = "1.2.3.1"
    header.ContentDate, header.ContentTime = "20250102", "030405.678000"
    header.ReferencedSeriesSequence = [image]
    header.SegmentSequence = [Dataset(), Dataset()]
    for segment, name in zip(header.SegmentSequence, ["tumor", "cyst"], strict=True):
        segment.SegmentLabel = name
    header.SegmentSequence[0].SegmentNumber, header.SegmentSequence[1].SegmentNumber = 1, 2
    SegList(file).update(server(series(), headers=[header]))
    assert json.loads(file.read_text()) == {"format": 1, "series": KNOWN}


@pytest.mark.parametrize("content", ["{", '{"format": 2, "series": {}}', '{"format": 1, "series": {"1.2.3": {}}}'])
def test_a_list_that_cannot_be_read_is_requested_again(tmp_path: Path, content: str) -> None:
    file = tmp_path / "segmentations.json"
    file.write_text(content)
    SegList(file).update(server(series(), headers=[]))
    assert json.loads(file.read_text())["series"] == {"1.2.3": {"count": 1, "instances": []}}


def test_a_series_is_requested_again_when_its_number_of_instances_changes(tmp_path: Path) -> None:
    file = tmp_path / "segmentations.json"
    file.write_text(json.dumps({"format": 1, "series": KNOWN}))
    segs = SegList(file)
    segs.update(server(series(instances=None), headers=[]))
    assert segs.find("1.2.3", "1.2.9") is None
    segs.update(server())
    assert json.loads(file.read_text())["series"] == {}
