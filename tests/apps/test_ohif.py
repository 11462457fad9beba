"""OHIF in a browser, on a series of a real PACS: what an annotator clicks is what the voxels say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from dicom_files import write_series
from ohif import METASTASIS, Ohif, open_study, serve_archive
from orthanc import Orthanc, orthanc

from lib.dicom_seg import read_seg, segment_names
from lib.dicom_series import open_series
from sam3d_label import load_model
from sam3d_label.weights import open_weights
from sam3d_label.weights.adapter import save_adapter
from sam3d_label.weights.versions import Versions

pytestmark = pytest.mark.slow

BESIDE = (131, 300, 21)
VERTEBRA = (256, 330, 21)
CLOSE = 3
"""Voxels by which a click may miss: a pixel of the screen is larger than one of the image."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ohif")


@pytest.fixture(scope="module")
def slices(real_data: Path) -> list[Path]:
    return sorted((real_data / "dicom" / "CRLM-CT-1004").iterdir())


@pytest.fixture(scope="module")
def archive(slices: list[Path], folder: Path) -> Iterator[Orthanc]:
    with orthanc(folder / "orthanc") as server:
        server.store(slices)
        yield server


@pytest.fixture(scope="module")
def server(archive: Orthanc, folder: Path) -> Iterator[str]:
    with serve_archive(archive, folder, labels="tumor,cyst") as url:
        yield url


@pytest.fixture
def ohif(server: str, slices: list[Path]) -> Iterator[Ohif]:
    with open_study(server, slices) as viewer:
        yield viewer


def painted(mask: np.ndarray, ijk: tuple[int, ...]) -> int:
    """The value that most of a mask's voxels around one have."""
    i, j, k = ijk
    values = mask[i - CLOSE : i + CLOSE + 1, j - CLOSE : j + CLOSE + 1, k]
    return int(np.bincount(values.ravel()).argmax())


def stored(archive: Orthanc, slices: list[Path]) -> tuple[dict[int, str], np.ndarray]:
    """The names of the one DICOM SEG, and its voxels on the grid of the series; it is removed."""
    (found,) = archive.search(Modality="SEG")
    series = found["0020000E"]["Value"][0]
    seg = pydicom.dcmread(pydicom.filebase.DicomBytesIO(archive.instance(series)))
    archive.remove(series)
    return segment_names(seg), read_seg(seg, open_series(slices[0].parent)[0])


def test_clicks_make_masks_where_they_are(ohif: Ohif) -> None:
    ohif.choose("tumor")
    ohif.click(METASTASIS)
    ohif.picture("click")
    ohif.run()
    ohif.picture("mask")
    tumor, cyst = (ohif.segments()[name] for name in ("tumor", "cyst"))
    first = ohif.mask()
    assert set(np.unique(first)) == {0, tumor}
    assert painted(first, METASTASIS) == tumor

    ohif.choose("background")
    ohif.click(BESIDE)
    ohif.choose("tumor")
    ohif.run()
    ohif.picture("outside")
    second = ohif.mask()
    assert 0 < np.count_nonzero(second) < np.count_nonzero(first)
    assert painted(second, METASTASIS) == tumor
    assert painted(second, BESIDE) == 0

    ohif.choose("cyst")
    ohif.click(VERTEBRA)
    ohif.run()
    third = ohif.mask()
    assert painted(third, VERTEBRA) == cyst
    np.testing.assert_array_equal(third == tumor, second == tumor)


def test_an_error_says_why_and_run_stays_alive(ohif: Ohif) -> None:
    ohif.choose("tumor")
    ohif.run()
    ohif.notice("No clicks")
    ohif.choose("background")
    ohif.click(BESIDE)
    ohif.run()
    ohif.notice("select the label's row, then press Run")
    ohif.picture("error")
    ohif.choose("tumor")
    ohif.click(METASTASIS)
    ohif.run()
    assert painted(ohif.mask(), METASTASIS) == ohif.segments()["tumor"]


@pytest.fixture
def blind_version(server: str, folder: Path) -> Iterator[str]:
    """A version that finds nothing but what is clicked on; it serves."""
    weights = open_weights("tiny")
    model = load_model("tiny")
    model.fine_path.out.bias.data.fill_(-1e4)
    versions = Versions(folder / "model" / "versions")
    with versions.adding() as (version, beside):
        save_adapter(model, weights.card, beside)
    versions.publish(version, "test")
    yield version
    versions.rollback()


def test_an_empty_mask_is_told(ohif: Ohif, blind_version: str) -> None:
    ohif.run_unprompted()
    ohif.notice("The mask is empty: nothing was found")
    ohif.picture("empty")
    assert not ohif.mask().any()


def test_a_corrected_mask_becomes_a_label_by_one_click(
    ohif: Ohif, server: str, archive: Orthanc, slices: list[Path]
) -> None:
    ohif.choose("tumor")
    ohif.click(METASTASIS)
    ohif.run()
    found = ohif.mask()
    ohif.take("Eraser", "tumor", 49)
    ohif.stroke(METASTASIS, (130, 270, 21), (75, 330, 21), (150, 320, 21))
    corrected = ohif.mask()
    assert np.count_nonzero(corrected) < np.count_nonzero(found) / 10
    ohif.take("Brush", "tumor", 7)
    ohif.stroke(METASTASIS, (114, 300, 21))
    ohif.picture("correct")
    corrected = ohif.mask()
    assert painted(corrected, METASTASIS) == ohif.segments()["tumor"]
    ohif.save_label()
    ohif.picture("saved")
    ledger = httpx.get(f"{server}/sam3d/state").json()["ledger"]
    assert (ledger["images"], ledger["labelled"]) == (1, 1)
    names, label = stored(archive, slices)
    assert names == {1: "tumor"}
    np.testing.assert_array_equal(label > 0, corrected > 0)


def test_a_segmentation_that_ohif_exports_becomes_a_label_too(
    ohif: Ohif, server: str, archive: Orthanc, slices: list[Path]
) -> None:
    ohif.choose("cyst")
    ohif.click(VERTEBRA)
    ohif.run()
    mask = ohif.mask()
    ohif.export("my cyst")
    uid = str(pydicom.dcmread(slices[0], stop_before_pixels=True).SeriesInstanceUID)
    answer = httpx.get(f"{server}/datastore/label/info", params={"label": uid, "tag": "final"}, timeout=60)
    assert {"name": "cyst", "idx": 1} in answer.json()["label_info"]
    _, label = stored(archive, slices)
    np.testing.assert_array_equal(label, mask)


def test_nothing_painted_is_not_saved(ohif: Ohif, archive: Orthanc) -> None:
    ohif.page.click("[data-cy=SaveLabel]")
    ohif.notice("Nothing is painted")
    assert archive.search(Modality="SEG") == []


def test_the_study_list_is_that_of_the_pacs(server: str, archive: Orthanc, slices: list[Path], tmp_path: Path) -> None:
    write_series(tmp_path, patient="P-2")
    archive.store(tmp_path.iterdir())
    both = httpx.get(f"{server}/proxy/dicom/qido/studies").json()
    one = httpx.get(f"{server}/proxy/dicom/qido/studies", params={"PatientID": "P-2"}).json()
    assert (len(both), len(one)) == (2, 1)
    study, series = one[0]["0020000D"]["Value"][0], httpx.get(f"{archive.dicom_web}/series?PatientID=P-2").json()
    archive.remove(series[0]["0020000E"]["Value"][0])
    assert httpx.get(f"{server}/proxy/dicom/qido/studies", params={"StudyInstanceUID": study}).json() == []


@pytest.mark.parametrize("way", ["wado/%2e%2e/system", "wado/studies/..%2f..%2f..%2fsystem", "%2e%2e/system"])
def test_no_way_leads_out_of_the_dicom_web_service(server: str, way: str) -> None:
    answer = httpx.get(f"{server}/proxy/dicom/{way}")
    assert (answer.status_code, "not a path of DICOMweb" in answer.json()["detail"]) == (400, True)


def test_ohifs_files_come_as_they_are(server: str) -> None:
    icon = httpx.get(f"{server}/ohif/assets/favicon.ico")
    assert "html" not in icon.headers["content-type"]
    assert icon.content[:4] == b"\0\0\1\0"
    for page in ("", "monai-label", "..%2f..%2findex.py", "%2e%2e/%2e%2e/ohif.py"):
        assert httpx.get(f"{server}/ohif/{page}").text.startswith("<!doctype html>")
    assert "dataSources" in httpx.get(f"{server}/ohif/app-config.js").text
