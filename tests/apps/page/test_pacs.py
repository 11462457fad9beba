"""The page on a DICOMweb server: an oblique series is clicked, saved as DICOM SEG, and opened again; OHIF is linked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from tests.helpers.app_helpers import CENTRE, serve
from tests.helpers.dicom_files import OBLIQUE, write_series
from tests.helpers.orthanc import orthanc
from tests.helpers.page import CORONAL, Page, open_annotator, server_mask

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pacs")


@pytest.fixture(scope="module")
def server(folder: Path, weights_path: Path) -> Iterator[tuple[str, str]]:
    """The server's address, and the id of a series."""
    with orthanc(folder / "orthanc") as archive, pytest.MonkeyPatch.context() as patch:
        series, _ = write_series(folder / "slices", modality="MR", orientation=OBLIQUE, reverse=True)
        archive.store((folder / "slices").iterdir())
        patch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(folder / "cache"))
        arguments = ["--studies", archive.dicom_web]
        for key, value in {"weights": str(weights_path), "labels": "tumor,cyst", "dicomweb_refresh": "0.1"}.items():
            arguments += ["--conf", key, value]
        with serve(arguments, folder) as url:
            yield url, series


def test_a_series_is_clicked_saved_and_opened_again(server: tuple[str, str], tmp_path: Path) -> None:
    url, series = server
    with open_annotator(url) as user:
        user.open(series)
        user.click(CENTRE)
        outside = [CENTRE[0] + 6, CENTRE[1], CENTRE[2]]
        user.click(outside, button="right", plane=CORONAL)
        expected = server_mask(url, tmp_path, series, foreground=[CENTRE], background=[outside])
        assert expected.any()
        assert np.array_equal(user.voxels(), expected)
        user.press("Control+s")
        expect(user.page.locator("#saved")).to_have_text("Saved as final label", timeout=30_000)
        [case] = httpx.get(f"{url}/sam3d/cases").json()
        assert case["labelled"]
        assert case["title"].startswith("MR")
        expect(user.page.locator("#case-title")).to_have_text(case["title"])

        user.page.reload()
        user.opened(series)
        assert np.array_equal(user.voxels(), expected)
        check_prompts(user, [CENTRE], [outside])


def check_prompts(user: Page, foreground: list[list[int]], background: list[list[int]]) -> None:
    assert user.prompts() == {"foreground": foreground, "background": background, "roi": None}


def test_ohif_is_linked_with_the_study(server: tuple[str, str]) -> None:
    url, series = server
    study = httpx.get(f"{url}/sam3d/cases/view", params={"image": series}).json()["study"]
    with open_annotator(url) as user:
        expect(user.page.locator("#ohif")).to_be_visible()
        user.open(series)
        link = user.page.get_attribute("#case-ohif", "href")
        assert link == f"../ohif/monai-label?StudyInstanceUIDs={study}"
        assert httpx.get(f"{url}/sam3d/{link}", follow_redirects=True).status_code == 200
