"""From a PACS to a better mask, as one annotator goes: click, correct, save, train, activate, reopen, click again."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from sam3d_label.image.volume import Volume
from sam3d_label.masks import dice
from tests.helpers.browser import browser, open_page
from tests.helpers.dicom_files import write_series
from tests.helpers.ohif import METASTASIS, open_study, serve_archive
from tests.helpers.orthanc import orthanc

pytestmark = pytest.mark.e2e
MINUTES = 25
REPOSITORY = Path(__file__).resolve().parents[2]
REAL_DATA = Path(os.environ.get("SAM3D_DATA") or REPOSITORY.parent / "shared" / "data")


@dataclass(frozen=True)
class Study:
    """A series to annotate.

    Attributes:
        slices: Its files.
        target: A voxel of the lesion.
        aside: Voxels of the same slice, where the eraser goes.
    """

    slices: list[Path]
    target: tuple[int, int, int]
    aside: tuple[tuple[int, int, int], ...]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A metastasis in a real CT; without real volumes, the lesion of a phantom as a scanner would send it."""
    real = REAL_DATA / "dicom" / "CRLM-CT-1004"
    if real.is_dir():
        return Study(sorted(real.iterdir()), METASTASIS, ((130, 270, 21), (75, 330, 21), (150, 320, 21)))
    image, label = (Volume.open(REPOSITORY / f"sample-data/{kind}/phantom_001.nii.gz") for kind in ("images", "labels"))
    write_series(tmp_path / "series", np.rint(image.array).astype(np.int16))
    i, j, k = np.argwhere(label.array > 0).mean(0).round().astype(int).tolist()
    return Study(sorted((tmp_path / "series").iterdir()), (i, j, k), ((i + 20, j, k), (i - 20, j, k)))


def trained(server: str) -> dict[str, Any]:
    """The page's state, once the training has ended."""
    deadline = time.monotonic() + 60 * MINUTES
    while time.monotonic() < deadline:
        state: dict[str, Any] = httpx.get(f"{server}/sam3d/state", timeout=60).json()
        assert "error" not in state["training"]["stats"], state["training"]["stats"]
        if state["training"]["status"] == "DONE" and state["versions"]:
            return state
        time.sleep(2)
    raise AssertionError("the training did not end")


def serve_version(server: str, version: str) -> None:
    """Presses the button on the page that makes a version the active one."""
    with browser() as chromium:
        page, _ = open_page(chromium, f"{server}/sam3d/#/learn")
        page.click(f"button[data-version='{version}']")
        page.click("#confirm button[value=yes]")
        expect(page.locator("#summary")).to_contain_text(f"active version: {version}")


def test_from_a_pacs_to_a_better_mask(study: Study, tmp_path: Path) -> None:
    i, j, k = study.target
    with orthanc(tmp_path / "orthanc") as archive:
        archive.store(study.slices)
        settings = {"weights": "tiny", "train_epochs": "8", "reference_limit": "none", "reference_seconds": "0"}
        with serve_archive(archive, tmp_path, labels="tumor", **settings) as server:
            with open_study(server, study.slices) as ohif:
                ohif.choose("tumor")
                ohif.segment(study.target)
                before = ohif.mask()
                ohif.take("Eraser", "tumor", 49)
                ohif.stroke(study.target, *study.aside)
                ohif.take("Brush", "tumor", 7)
                ohif.stroke(study.target, (i + 1, j, k))
                corrected = ohif.mask()
                assert corrected.any()
                ohif.save_label()
                assert len(archive.search(Modality="SEG")) == 1
                ohif.update_model()
            state = trained(server)
            (version,) = state["versions"]
            assert state["ledger"]["counts"]["train"] == version["annotated"] == 1
            assert not version["serves"], "one case alone compares with nothing, so a person decides"
            serve_version(server, version["version"])
            with open_study(server, study.slices) as ohif:
                ohif.wait_for_saved_label()
                np.testing.assert_array_equal(ohif.mask(), corrected, "reopening shows the label that was saved")
                ohif.choose("tumor")
                ohif.segment(study.target)
                after = ohif.mask()
    assert dice(after > 0, corrected > 0) > dice(before > 0, corrected > 0)
