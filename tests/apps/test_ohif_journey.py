"""From a PACS to a better mask, as one annotator goes: click, correct, save, train, serve, click again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import browser, open_page
from ohif import METASTASIS, open_study, serve_archive
from orthanc import orthanc

from sam3d_label.evaluation.metrics import dice

pytestmark = pytest.mark.e2e
MINUTES = 25


@pytest.fixture
def slices(real_data: Path) -> list[Path]:
    return sorted((real_data / "dicom" / "CRLM-CT-1004").iterdir())


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
    """Presses the button on the page that lets a version serve."""
    with browser() as chromium:
        page, _ = open_page(chromium, f"{server}/sam3d/")
        page.click(f"button[data-version='{version}']")
        page.click("#confirm button[value=yes]")
        page.wait_for_function(f"document.querySelector('#summary').textContent.includes('version {version} serves')")


def test_from_a_pacs_to_a_better_mask(slices: list[Path], weights_path: Path, tmp_path: Path) -> None:
    conf = {"labels": "tumor", "weights": str(weights_path), "train_epochs": "2"}
    with orthanc(tmp_path / "orthanc") as archive:
        archive.store(slices)
        with serve_archive(archive, tmp_path, **conf) as server:
            with open_study(server, slices) as ohif:
                ohif.choose("tumor")
                ohif.click(METASTASIS)
                ohif.run()
                before = ohif.mask()
                ohif.take("Eraser", "tumor", 49)
                ohif.stroke(METASTASIS, (130, 300, 21))
                ohif.take("Brush", "tumor", 7)
                ohif.stroke(METASTASIS, (114, 300, 21))
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
            with open_study(server, slices) as ohif:
                ohif.choose("tumor")
                ohif.click(METASTASIS)
                ohif.run()
                after = ohif.mask()
    assert dice(after > 0, corrected > 0) > dice(before > 0, corrected > 0)
