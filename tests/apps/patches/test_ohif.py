"""OHIF in a browser, on a series of a real PACS: what an annotator clicks is what the voxels say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest

from lib.datastores.dicom_seg_read import read_seg, segment_names
from lib.datastores.dicom_series import open_series
from sam3d_label import load_model
from sam3d_label.model_update.versions import Versions
from sam3d_label.network import SAM3D
from sam3d_label.weights import open_weights
from sam3d_label.weights.adapter import save_adapter
from tests.helpers.browser import browser, open_page
from tests.helpers.dicom_files import write_series
from tests.helpers.ohif import CLASSES, METASTASIS, Ohif, open_study
from tests.helpers.orthanc import Orthanc

pytestmark = pytest.mark.slow

BESIDE = (131, 300, 21)
VERTEBRA = (256, 330, 21)
CLOSE = 3
"""Voxels by which a click may miss: a pixel of the screen is larger than one of the image."""


@pytest.fixture(scope="module")
def slices(real_data: Path) -> list[Path]:
    return sorted((real_data / "dicom" / "CRLM-CT-1004").iterdir())


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


def sent(viewer: Ohif) -> list[dict[str, Any]]:
    """The params of the requests to infer from now on."""
    params: list[dict[str, Any]] = []

    def note(request: Any) -> None:
        if "/infer/" in request.url:
            params.append(json.loads(re.search(r"\{.*\}", request.post_data)[0]))  # type: ignore[index]

    viewer.page.on("request", note)
    return params


def test_each_click_makes_a_mask_where_it_is(ohif: Ohif) -> None:
    requests = sent(ohif)
    ohif.open_points()
    ohif.segment(METASTASIS)
    ohif.picture("click")
    assert list(ohif.segments().items()) == [("tumor", 1), ("cyst", 2)]
    first = ohif.mask()
    assert set(np.unique(first)) == {0, 1}
    assert painted(first, METASTASIS) == 1
    assert ohif.notices() == []

    ohif.choose("background")
    ohif.segment(BESIDE)
    ohif.picture("outside")
    second = ohif.mask()
    assert 0 < np.count_nonzero(second) < np.count_nonzero(first)
    assert painted(second, METASTASIS) == 1
    assert painted(second, BESIDE) == 0

    ohif.choose("cyst")
    ohif.segment(VERTEBRA)
    third = ohif.mask()
    assert painted(third, VERTEBRA) == 2
    np.testing.assert_array_equal(third == 1, second == 1)
    assert [(each["label"], len(each["foreground"]), len(each["background"])) for each in requests] == [
        ("tumor", 1, 0),
        ("tumor", 1, 1),
        ("cyst", 1, 0),
    ]

    ohif.choose("tumor")
    ohif.run()
    assert requests[3]["foreground"] == requests[1]["foreground"]
    assert requests[3]["background"] == requests[1]["background"]
    np.testing.assert_array_equal(ohif.mask(), third)


def test_overtaken_clicks_do_not_paint_and_the_switch_turns_clicks_off(ohif: Ohif) -> None:
    held: list[Any] = []
    ohif.page.route("**/infer/**", lambda route: held.append(route))
    ohif.open_points()
    ohif.click(METASTASIS)
    ohif.choose("background")
    ohif.click(BESIDE)
    ohif.page.wait_for_timeout(300)
    early, late = held
    with ohif.page.expect_response("**/infer/**", timeout=120_000):
        late.continue_()
    ohif.page.wait_for_timeout(500)
    mask = ohif.mask()
    with ohif.page.expect_response("**/infer/**", timeout=120_000) as answer:
        early.continue_()
    assert answer.value.status == 200
    ohif.page.wait_for_timeout(500)
    assert mask.any()
    np.testing.assert_array_equal(ohif.mask(), mask)

    ohif.run_on_click(False)
    ohif.choose("cyst")
    ohif.click(VERTEBRA)
    ohif.page.wait_for_timeout(500)
    assert len(held) == 2
    ohif.page.unroute("**/infer/**")
    ohif.run()
    assert painted(ohif.mask(), VERTEBRA) == 2


def test_a_notice_says_what_to_do_and_goes_with_its_cause(ohif: Ohif) -> None:
    first = "Place a point inside the lesion first."
    ohif.open_points()
    ohif.run()
    ohif.notice(first)
    assert len(ohif.notices()) == 1
    ohif.choose("background")
    ohif.segment(BESIDE)
    ohif.notice(first)
    assert len(ohif.notices()) == 1
    ohif.picture("error")
    ohif.choose("tumor")
    ohif.segment(METASTASIS)
    ohif.wait_without_notices()
    assert painted(ohif.mask(), METASTASIS) == 1


def test_class_prompts_paint_what_is_ticked_or_report_why_not(ohif: Ohif) -> None:
    ohif.tick("cyst", on=False)
    assert ohif.page.locator(".tmpActionButton").count() == 0
    ohif.run(CLASSES)
    ohif.notice("No structure is ticked: tick tumor")
    ohif.tick("cyst")
    ohif.run(CLASSES)
    ohif.notice("cannot find cyst without a click")
    assert len(ohif.notices()) == 1
    assert not ohif.mask().any()
    ohif.tick("cyst", on=False)
    ohif.tick("tumor")
    ohif.run(CLASSES)
    assert set(np.unique(ohif.mask())) <= {0, 1}


def test_the_end_of_a_training_is_announced_with_its_result(ohif: Ohif, server: str) -> None:
    states = [
        {"status": "RUNNING", "epoch": 0, "total_epochs": 8},
        {"status": "DONE", "version": "0007", "passes": False, "reason": "worse on 3 cases"},
    ]
    ohif.open_learning()
    ohif.page.wait_for_selector("[title='Not Running']")
    ohif.page.route("**/sam3d/training", lambda route: route.fulfill(json={"id": "a", **states[0]}))
    ohif.page.get_by_role("button", name="Stop Training").wait_for(timeout=30_000)
    assert ohif.page.inner_text("[title='0/8 epochs completed']") == "0%"
    states.pop(0)
    ohif.notice("Version 0007 is not in use: worse on 3 cases.")
    assert len(ohif.notices()) == 1
    assert ohif.page.locator("[data-sonner-toast] a").get_attribute("href") == f"{server}/sam3d/#/learn"
    ohif.page.get_by_role("button", name="Update Model").wait_for()


def test_another_version_of_ohif_is_reported(server: str, slices: list[Path]) -> None:
    def rename(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("this.onChangeLabel =", "this.onChooseLabel ="))

    with browser() as chromium:
        page, _ = open_page(chromium, "about:blank", 1280, 800)
        page.route("**/3933.bundle.*.js", rename)
        study = str(pydicom.dcmread(slices[0], stop_before_pixels=True).StudyInstanceUID)
        page.goto(f"{server}/ohif/monai-label?StudyInstanceUIDs={study}")
        notice = "[data-sonner-toast]:has-text('PointPrompts.onChangeLabel is missing. Install MONAI Label 0.8.5')"
        page.wait_for_selector(notice, timeout=120_000)


@pytest.fixture
def blind_version(server: str, folder: Path) -> Iterator[str]:
    """A version that finds nothing but what is clicked on; it serves."""
    weights = open_weights("tiny")
    model = load_model("tiny")
    assert isinstance(model, SAM3D)
    assert model.fine_path is not None
    model.fine_path.out.bias.data.fill_(-1e4)
    versions = Versions(folder / "model" / "versions")
    with versions.new_version() as (version, new):
        save_adapter(model, weights.card, new)
    versions.publish(version, "test")
    yield version
    versions.rollback()


def test_an_empty_mask_is_reported(ohif: Ohif, blind_version: str) -> None:
    ohif.run_unprompted()
    ohif.notice("The mask is empty: nothing was found. The segment is unchanged.")
    ohif.picture("empty")
    assert not ohif.mask().any()


def test_a_corrected_mask_becomes_a_label_by_one_click(
    ohif: Ohif, server: str, archive: Orthanc, slices: list[Path]
) -> None:
    ohif.choose("tumor")
    ohif.segment(METASTASIS)
    found = ohif.mask()
    ohif.take("Eraser", "tumor", 49)
    ohif.stroke(METASTASIS, (130, 270, 21), (75, 330, 21), (150, 320, 21))
    corrected = ohif.mask()
    assert 0 < np.count_nonzero(corrected) < np.count_nonzero(found) / 2, "the eraser takes most of the liver"
    ohif.take("Brush", "tumor", 7)
    ohif.stroke(METASTASIS, (114, 300, 21))
    ohif.picture("correct")
    corrected = ohif.mask()
    assert painted(corrected, METASTASIS) == ohif.segments()["tumor"]
    held: list[Any] = []
    ohif.page.route("**/datastore/label?*", lambda route: held.append(route))
    ohif.page.click("[data-cy=SaveLabel]")
    ohif.notice("Saving…")
    ohif.page.unroute("**/datastore/label?*")
    held[0].continue_()
    ohif.notice("Saved as a label")
    ohif.picture("saved")
    assert len(ohif.notices()) == 1
    ledger = httpx.get(f"{server}/sam3d/state").json()["ledger"]
    assert (ledger["images"], ledger["labelled"]) == (1, 1)
    ohif.open_learning()
    ohif.page.get_by_role("button", name="Next Sample").click()
    ohif.notice("Every series has a label")
    names, label = stored(archive, slices)
    assert names == {1: "tumor"}
    np.testing.assert_array_equal(label > 0, corrected > 0)


def test_a_segmentation_that_ohif_exports_becomes_a_label_too(
    ohif: Ohif, server: str, archive: Orthanc, slices: list[Path]
) -> None:
    ohif.choose("cyst")
    ohif.segment(VERTEBRA)
    mask = ohif.mask()
    ohif.export("my cyst")
    uid = str(pydicom.dcmread(slices[0], stop_before_pixels=True).SeriesInstanceUID)
    answer = httpx.get(f"{server}/datastore/label/info", params={"label": uid, "tag": "final"}, timeout=60)
    assert {"name": "cyst", "idx": 2} in answer.json()["label_info"]
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
