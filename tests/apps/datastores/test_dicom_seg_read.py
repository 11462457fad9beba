"""Label maps survive the way into a DICOM SEG and back, on any grid, with their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.datastores.dicom_seg_read import read_seg, referenced_series, segment_names, written_at
from lib.datastores.dicom_seg_write import make_seg
from lib.datastores.dicom_series import open_series
from sam3d_label.errors import VolumeError
from sam3d_label.image.volume import Volume
from tests.helpers.dicom_files import CORONAL, OBLIQUE, label_of, sent, write_series

POSES: dict[str, dict[str, Any]] = {
    "axial": {},
    "reversed": {"reverse": True},
    "oblique": {"orientation": OBLIQUE},
    "coronal": {"orientation": CORONAL},
    "mr": {"modality": "MR", "reverse": True, "SliceThickness": None, "PatientSex": "U", "StudyID": None},
    "tilted": {"step": [0.0, 0.5, 2.0]},
}


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
