"""OHIF in a browser, on a series of a real PACS: what an annotator clicks is what the voxels say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from app_helpers import SCRIPT, serve
from browser import browser, open_page
from ohif import Ohif
from orthanc import Orthanc, orthanc

pytestmark = pytest.mark.slow

METASTASIS = (113, 300, 21)
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(folder / "cache"))
        patch.setenv("MONAI_LABEL_AUTO_UPDATE_SCORING", "false")
        arguments = ["--studies", archive.dicom_web]
        for key, value in {"labels": "tumor,cyst", "dicomweb_refresh": "0.5"}.items():
            arguments += ["--conf", key, value]
        with (folder / "log").open("wb") as log, serve(SCRIPT, arguments, log, folder) as url:
            yield url


@pytest.fixture
def ohif(server: str, slices: list[Path]) -> Iterator[Ohif]:
    study = str(pydicom.dcmread(slices[0], stop_before_pixels=True).StudyInstanceUID)
    with browser() as chromium:
        page, _ = open_page(chromium, "about:blank", 1600, 900)
        viewer = Ohif(page, server, study)
        viewer.connect(f"{server}/")
        yield viewer


def painted(mask: np.ndarray, ijk: tuple[int, ...]) -> int:
    """The value that most of a mask's voxels around one have."""
    i, j, k = ijk
    values = mask[i - CLOSE : i + CLOSE + 1, j - CLOSE : j + CLOSE + 1, k]
    return int(np.bincount(values.ravel()).argmax())


def picture(page: Any, name: str) -> None:
    folder = os.environ.get("SAM3D_SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/ohif-{name}.png")


def test_clicks_make_masks_where_they_are(ohif: Ohif) -> None:
    ohif.choose("tumor")
    ohif.click(METASTASIS)
    ohif.run()
    tumor, cyst = (ohif.segments()[name] for name in ("tumor", "cyst"))
    first = ohif.mask()
    assert set(np.unique(first)) == {0, tumor}
    assert painted(first, METASTASIS) == tumor

    ohif.choose("background")
    ohif.click(BESIDE)
    ohif.choose("tumor")
    ohif.run()
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
