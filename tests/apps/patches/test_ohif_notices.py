"""What OHIF says when something goes wrong, how long it says it, and what happens to the segments meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest

from lib.datastores.dicom_series import open_series
from tests.helpers.app_helpers import write_nifti
from tests.helpers.dicom_files import write_series
from tests.helpers.ohif import AUTO, CLASSES, CLICKS, Ohif, open_study
from tests.helpers.orthanc import Orthanc

pytestmark = pytest.mark.slow
SHAPE = (64, 48, 20)
MIDDLE = (32, 24, 10)
BEYOND_A_NOTICE = 11_000
"""Milliseconds after which a notice that has an end is gone."""

PROXY_ERROR = {"status": 502, "content_type": "text/html", "body": "<html><h1>502 Bad Gateway</h1></html>"}
NO_ANSWER = "The server does not answer (502). Try again."


@pytest.fixture(scope="module")
def slices(folder: Path) -> list[Path]:
    write_series(folder / "slices", np.random.default_rng(0).integers(-100, 200, SHAPE, np.int16))
    return sorted((folder / "slices").iterdir())


@pytest.fixture
def saved(server: str, slices: list[Path], folder: Path, archive: Orthanc) -> Iterator[np.ndarray]:
    """A saved label of the series, a box named tumor."""
    volume, _ = open_series(slices[0].parent)
    label = np.zeros(SHAPE, np.uint8)
    label[10:20, 10:20, 5:8] = 1
    httpx.put(
        f"{server}/datastore/label",
        params={"image": str(pydicom.dcmread(slices[0], stop_before_pixels=True).SeriesInstanceUID)},
        data={"params": json.dumps({"label_info": [{"name": "tumor", "idx": 1}]})},
        files={"label": ("label.nii.gz", write_nifti(folder / "label.nii.gz", label, volume.affine).read_bytes())},
        timeout=60,
    ).raise_for_status()
    yield label
    for seg in archive.search(Modality="SEG"):
        archive.remove(seg["0020000E"]["Value"][0])


def answer_with(ohif: Ohif, mask: np.ndarray) -> None:
    """Lets every request for a mask be answered with this one."""
    sizes = " ".join(map(str, mask.shape))
    header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {sizes}\nencoding: raw\n\n"
    body = header.encode() + mask.tobytes(order="F")
    ohif.page.unroute("**/infer/**")
    ohif.page.route("**/infer/**", lambda route: route.fulfill(body=body, content_type="application/octet-stream"))


def test_an_automatic_mask_takes_nothing_away_without_asking(
    server: str, slices: list[Path], saved: np.ndarray
) -> None:
    questions: list[str] = []
    answers = [False, True]

    def decide(dialog: Any) -> None:
        questions.append(dialog.message)
        dialog.accept() if answers[len(questions) - 1] else dialog.dismiss()

    with open_study(server, slices) as ohif:
        ohif.page.on("dialog", decide)
        ohif.wait_for_saved_label()
        answer_with(ohif, np.zeros(SHAPE, np.uint8))
        ohif.run_unprompted()
        ohif.notice("The mask is empty: nothing was found. The segment is unchanged.")
        np.testing.assert_array_equal(ohif.mask(), saved)

        found = np.zeros(SHAPE, np.uint8)
        found[30:40, 30:40, 10:12] = 1
        answer_with(ohif, found)
        ohif.run(AUTO)
        np.testing.assert_array_equal(ohif.mask(), saved)
        ohif.tick("tumor")
        ohif.run(CLASSES)
        np.testing.assert_array_equal(ohif.mask(), found)
        assert questions == ["Replace what is painted as tumor by the mask that was found?"] * 2
        ohif.page.click("label[for=tab-2]")
        assert "Finds tumor without a click." in ohif.page.inner_text(f"{AUTO}")


def test_an_error_stays_until_the_next_success(server: str, slices: list[Path], archive: Orthanc) -> None:
    with open_study(server, slices) as ohif:
        ohif.page.route("**/infer/**", lambda route: route.fulfill(**PROXY_ERROR))
        ohif.open_points()
        ohif.click(MIDDLE)
        ohif.notice(NO_ANSWER)
        assert len(ohif.notices()) == 1
        ohif.page.unroute("**/infer/**")
        ohif.run()
        ohif.wait_without_notices()
        mask = ohif.mask()
        assert mask.any()

        ohif.page.route("**/datastore/label?*", lambda route: route.fulfill(**PROXY_ERROR))
        ohif.page.click("[data-cy=SaveLabel]")
        ohif.notice(f"Not saved. {NO_ANSWER}")
        ohif.page.wait_for_timeout(BEYOND_A_NOTICE)
        assert len(ohif.notices()) == 1
        ohif.page.unroute("**/datastore/label?*")
        ohif.page.route("**/datastore/label?*", lambda route: route.abort())
        ohif.page.click("[data-cy=SaveLabel]")
        ohif.notice("Not saved. The server does not answer. Try again.")
        ohif.page.wait_for_timeout(1000)
        assert len(ohif.notices()) == 1
        ohif.picture("no-answer")

        ohif.page.unroute("**/datastore/label?*")
        puts: list[Any] = []
        ohif.page.route("**/datastore/label?*", lambda route: puts.append(route))
        ohif.page.click("[data-cy=SaveLabel]")
        ohif.page.click("[data-cy=SaveLabel]")
        ohif.notice("Saving…")
        ohif.page.wait_for_timeout(500)
        assert len(puts) == 1
        puts[0].continue_()
        ohif.notice("Saved as a label: tumor")
        ohif.page.wait_for_timeout(1000)
        assert len(ohif.notices()) == 1
        (seg,) = archive.search(Modality="SEG")
    archive.remove(seg["0020000E"]["Value"][0])


def test_a_saved_label_that_does_not_come_is_reported(server: str, slices: list[Path], saved: np.ndarray) -> None:
    with open_study(server, slices, on_page=lambda page: page.route("**/datastore/segmentation?*", fail)) as ohif:
        ohif.notice(f"The saved label is not shown. {NO_ANSWER}")
        assert not ohif.mask().any()
        ohif.page.click("[data-sonner-toast]")
        ohif.wait_without_notices()


def fail(route: Any) -> None:
    route.fulfill(**PROXY_ERROR)


def test_a_notice_about_ticks_goes_with_the_next_tick(server: str, slices: list[Path]) -> None:
    with open_study(server, slices) as ohif:
        ohif.tick("cyst", on=False)
        ohif.run(CLASSES)
        ohif.notice("No structure is ticked")
        ohif.tick("tumor")
        ohif.wait_without_notices()


def test_points_are_gone_when_a_saved_label_is_opened(
    server: str, slices: list[Path], archive: Orthanc, saved: np.ndarray
) -> None:
    (seg,) = archive.search(Modality="SEG")
    with open_study(server, slices) as ohif:
        ohif.wait_for_saved_label()
        ohif.page.on("dialog", lambda dialog: dialog.accept())
        ohif.open_points()
        ohif.segment(MIDDLE)
        ohif.open_series(seg["0020000E"]["Value"][0])
        ohif.page.wait_for_function(f"() => ({CLICKS})() === 0")
        np.testing.assert_array_equal(ohif.mask(), saved)
        with ohif.page.expect_request("**/infer/**") as request:
            ohif.segment((40, 24, 10))
        assert '"foreground":[[40,24,10]]' in request.value.post_data.replace(" ", "")
