"""DICOM SEGs have what viewers and archives need."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from lib.datastores.dicom_seg_read import read_seg, segment_names
from lib.datastores.dicom_seg_write import make_seg
from lib.datastores.dicom_series import open_series
from sam3d_label.errors import VolumeError
from tests.helpers.dicom_files import label_of, sent, write_series


def test_segments_say_what_they_are(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume, headers = open_series(tmp_path)
    tumor, other = make_seg(headers, label_of(volume), {1: "Tumor", 3: "spleen"}, {"Tumor": [0, 0, 0]}).SegmentSequence
    assert tumor.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Mass"
    assert other.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    assert tumor.RecommendedDisplayCIELabValue == [0, 32896, 32896]
    assert tumor.SegmentAlgorithmType == "SEMIAUTOMATIC"


def test_several_segs_of_a_study_can_be_distinguished_in_a_list(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume, headers = open_series(tmp_path)
    before = datetime.now().replace(microsecond=0)
    seg = sent(make_seg(headers, label_of(volume), {1: "tumor", 3: "cyst"}, earlier=2))
    names, time = re.fullmatch(r"(.*) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", seg.SeriesDescription).groups()
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


def test_a_series_that_no_seg_can_refer_to_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, FrameOfReferenceUID=None)
    volume, headers = open_series(tmp_path)
    with pytest.raises(VolumeError, match="FrameOfReferenceUID"):
        make_seg(headers, label_of(volume), {1: "tumor", 3: "cyst"})
