"""The whole way with the shipped weights and a real case: next case, a click, a label, an epoch, a new version."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from sam3d_label.cli.serve import centre_of_lesion
from tests.helpers.page import CASE, CENTRE, SAMPLES, open_annotator, saved, server_mask

pytestmark = pytest.mark.e2e

TRAINING_SECONDS = 1800


def test_a_real_case_is_clicked_and_saved_and_a_training_makes_a_version(url: str, tmp_path: Path) -> None:
    """The phantoms have their labels; the page chooses the real case."""
    for case in ("phantom_001", "phantom_002"):
        label = (SAMPLES / "labels" / f"{case}.nii.gz").read_bytes()
        httpx.put(
            f"{url}/datastore/label",
            params={"image": case},
            data={"params": '{"label_info": [{"name": "tumor", "idx": 1}]}'},
            files={"label": ("label.nii.gz", label)},
        ).raise_for_status()
    with open_annotator(url) as user:
        user.page.select_option("#strategy", "first")
        user.page.click("#next-case")
        user.opened("lung_ct")
        expect(user.page.locator("#why")).to_contain_text("first unlabelled")
        assert user.page.evaluate("document.getElementById('window').selectedOptions[0].text") == "Soft tissue"
        user.click(centre_of_lesion(SAMPLES / "labels" / "lung_ct.nii.gz"))
        user.picture("annotate")
        user.page.click("#save-next")
        expect(user.page.locator("#why")).to_contain_text("All cases are labelled.", timeout=30_000)
        assert saved(url, tmp_path, "lung_ct").get_fdata().any()

        user.page.click("#to-learn")
        user.page.fill("#epochs", "1")
        user.page.click("#train")
        expect(user.page.locator("#stop")).to_be_visible(timeout=30_000)
        expect(user.page.locator("#train")).to_be_disabled()
        user.until("document.querySelector('#versions tbody tr td')?.innerText === '0001'", TRAINING_SECONDS)
        user.until("document.getElementById('stop').hidden", TRAINING_SECONDS)
        user.until("document.querySelectorAll('#curve circle').length === 2")
        assert "0001" in user.page.inner_text("#training")
        user.picture("learn")
        if user.page.is_visible("button[data-version='0001']"):
            user.page.click("button[data-version='0001']")
            user.page.click("#confirm button[value=yes]")
        expect(user.page.locator("#summary")).to_contain_text("active version: 0001")
        user.page.click("#to-annotate")
        user.open(CASE)
        user.page.click("#clear")
        user.click(CENTRE)
        assert user.page.evaluate("sam3d.session.layer.foreground") == [CENTRE]
        assert np.array_equal(user.voxels() == 1, server_mask(url, tmp_path, foreground=[CENTRE]) == 1)
