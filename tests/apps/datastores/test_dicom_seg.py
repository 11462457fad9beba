"""Label maps survive the way into a DICOM SEG and back, on any grid, with their names."""

from __future__ import annotations

import io
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from lib.datastores.dicom_seg import make_seg, read_seg, referenced_series, segment_names, written_at
from lib.datastores.dicom_series import open_series
from sam3d_label.errors import VolumeError
from sam3d_label.image.volume import Volume
from tests.helpers.dicom_files import CORONAL, OBLIQUE, write_series

POSES: dict[str, dict[str, Any]] = {
    "axial": {},
    "reversed": {"reverse": True},
    "oblique": {"orientation": OBLIQUE},
    "coronal": {"orientation": CORONAL},
    "mr": {"modality": "MR", "reverse": True, "SliceThickness": None, "PatientSex": "U", "StudyID": None},
    "tilted": {"step": [0.0, 0.5, 2.0]},
}


def label_of(volume: Volume) -> np.ndarray:
    """Two structures without any symmetry, of the values 1 and 3."""
    label = np.zeros(volume.shape, np.uint8)
    label[3:9, 4:15, 2:6] = 1
    label[12:25, 5:7, 5:12] = 3
    return label


def sent(seg: Dataset) -> Dataset:
    """What arrives of an instance that is stored and fetched."""
    buffer = io.BytesIO()
    seg.save_as(buffer, write_like_original=False)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


@pytest.mark.parametrize("pose", POSES)
def test_a_label_comes_back_as_it_was(tmp_path: Path, pose: str) -> None:
    series, _ = write_series(tmp_path, **POSES[pose])
    volume, headers = open_series(tmp_path)
    label = label_of(volume)
    seg = sent(make_seg(headers, label, {1: "tumor", 3: "Zyste äöü"}, {"tumor": (0, 255, 0)}))
    np.testing.assert_array_equal(read_seg(seg, volume), np.array([0, 1, 0, 2], np.uint8)[label])
    assert segment_names(seg) == {1: "tumor", 2: "Zyste äöü"}
    assert referenced_series(seg) == [series]
    assert (seg.Modality, seg.StudyInstanceUID) == ("SEG", headers[0].StudyInstanceUID)
    assert seg.FrameOfReferenceUID == headers[0].FrameOfReferenceUID
    assert (str(seg.PatientName), seg.PatientID) == ("Müller^Käthe", "P-17")
    assert len(written_at(seg)) >= 14
    source = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID in {header.SOPInstanceUID for header in headers}


def test_segments_say_what_they_are(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume, headers = open_series(tmp_path)
    tumor, other = make_seg(headers, label_of(volume), {1: "Tumor", 3: "spleen"}, {"Tumor": [0, 0, 0]}).SegmentSequence
    assert tumor.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Mass"
    assert other.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    assert tumor.RecommendedDisplayCIELabValue == [0, 32896, 32896]
    assert tumor.SegmentAlgorithmType == "SEMIAUTOMATIC"


def test_several_segs_of_a_study_can_be_told_apart_in_a_list(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume, headers = open_series(tmp_path)
    before = datetime.now().replace(microsecond=0)
    seg = sent(make_seg(headers, label_of(volume), {1: "tumor", 3: "cyst"}, earlier=2))
    names, time = re.fullmatch(r"(.*) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", seg.SeriesDescription).groups()  # type: ignore[union-attr]
    assert names == "tumor, cyst"
    assert before <= datetime.fromisoformat(time) <= datetime.now()
    assert seg.SeriesDate + seg.SeriesTime == re.sub(r"\D", "", time)
    assert seg.SeriesNumber == 302
    long = make_seg(headers, label_of(volume), {1: "a" * 60, 3: "b" * 60})
    assert len(long.SeriesDescription) == 64
    assert re.search(r"a… \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", long.SeriesDescription)


def test_an_empty_label_is_a_label(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume, headers = open_series(tmp_path)
    seg = sent(make_seg(headers, np.zeros(volume.shape, np.uint8), {1: "tumor"}))
    assert segment_names(seg) == {1: "tumor"}
    assert not read_seg(seg, volume).any()


def test_frames_come_flipped_and_in_any_order(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume, headers = open_series(tmp_path)
    label = (label_of(volume) == 1).astype(np.uint8)
    seg = make_seg(headers, label, {1: "tumor"})
    frames = seg.pixel_array[::-1, :, ::-1]
    groups = list(seg.PerFrameFunctionalGroupsSequence)[::-1]
    seg.PerFrameFunctionalGroupsSequence = groups
    shared = seg.SharedFunctionalGroupsSequence[0]
    x, *rest = map(float, shared.PlaneOrientationSequence[0].ImageOrientationPatient)
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [-x, *rest]
    for group in groups:
        place = group.PlanePositionSequence[0]
        width = (seg.Columns - 1) * float(shared.PixelMeasuresSequence[0].PixelSpacing[1])
        x, *rest = map(float, place.ImagePositionPatient)
        place.ImagePositionPatient = [x + width, *rest]
    seg.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    np.testing.assert_array_equal(read_seg(sent(seg), volume), label)


def test_a_tumour_in_an_organ_is_seen(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume, headers = open_series(tmp_path)
    small, large = np.zeros((2, *volume.shape), np.uint8)
    large[2:20, 2:20, 2:10], small[8:10, 8:10, 4:6] = 1, 1
    tumor, organ = (make_seg(headers, mask, {1: name}) for mask, name in ((small, "tumor"), (large, "liver")))
    for group in organ.PerFrameFunctionalGroupsSequence:
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2
    organ.SegmentSequence[0].SegmentNumber = 2
    pixels = np.concatenate([tumor.pixel_array, organ.pixel_array])
    tumor.SegmentSequence = [*tumor.SegmentSequence, *organ.SegmentSequence]
    tumor.PerFrameFunctionalGroupsSequence = [
        *tumor.PerFrameFunctionalGroupsSequence,
        *organ.PerFrameFunctionalGroupsSequence,
    ]
    tumor.NumberOfFrames = len(pixels)
    tumor.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    np.testing.assert_array_equal(read_seg(sent(tumor), volume), np.where(small > 0, 1, 2 * large))


@pytest.mark.parametrize("moved", [[0.6, 0, 0], [0, 0, 1.0], [500, 0, 0]])
def test_another_grid_is_refused(tmp_path: Path, moved: list[float]) -> None:
    write_series(tmp_path)
    volume, headers = open_series(tmp_path)
    seg = make_seg(headers, label_of(volume), {1: "tumor", 3: "cyst"})
    affine = volume.affine.copy()
    affine[:3, 3] += moved
    with pytest.raises(VolumeError, match="another grid"):
        read_seg(seg, Volume(volume.array, affine))


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume, headers = open_series(tmp_path)
    seg = make_seg(headers, label_of(volume), {1: "tumor", 3: "cyst"})
    del seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    with pytest.raises(VolumeError, match="without PlaneOrientationSequence"):
        read_seg(seg, volume)
    seg.PixelData = seg.PixelData[:10]
    with pytest.raises(VolumeError, match="cannot be read"):
        read_seg(seg, volume)
    seg.SegmentationType = "LABELMAP"
    with pytest.raises(VolumeError, match="LABELMAP"):
        read_seg(seg, volume)


def test_a_series_that_no_seg_can_refer_to_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, FrameOfReferenceUID=None)
    volume, headers = open_series(tmp_path)
    with pytest.raises(VolumeError, match="FrameOfReferenceUID"):
        make_seg(headers, label_of(volume), {1: "tumor", 3: "cyst"})
