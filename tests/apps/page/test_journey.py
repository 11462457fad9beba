"""The whole way with the shipped weights and real cases: clicks on MR, corrections, labels, a training, a version."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import expect

from sam3d_label.cli.serve import centre_of_lesion
from sam3d_label.model_update.reference_set import REAL, SHIPPED
from tests.helpers.app_helpers import serve
from tests.helpers.page import Page, open_annotator, saved, server_mask
from tests.helpers.training import activate_on_the_page, train_on_the_page

pytestmark = pytest.mark.e2e

TRAINING_SECONDS = 1800
STROKES = "([voxels, inside]) => sam3d.session.brush(voxels, inside)"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the five real crops. They are its reference set as well, so that this sets no limit here."""
    folder = tmp_path_factory.mktemp("journey")
    shutil.copytree(SHIPPED / "images", folder / "studies")
    conf = {"reference_limit": "none", "reference_seconds": "0", "labels": "tumor"}
    arguments = [word for key, value in conf.items() for word in ("--conf", key, value)]
    with serve(["--studies", str(folder / "studies"), *arguments], folder) as address:
        yield address


def truth_of(case: str) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_filename(SHIPPED / "labels" / f"{case}.nii.gz").dataobj) > 0


def annotate(user: Page, case: str) -> np.ndarray:
    """Click once inside the tumour, then paint and erase until the mask is that of the expert."""
    truth = truth_of(case)
    user.click(centre_of_lesion(SHIPPED / "labels" / f"{case}.nii.gz"))
    assert user.voxels().any()
    for voxels, inside in ((truth & (user.voxels() == 0), True), (~truth & (user.voxels() == 1), False)):
        user.page.evaluate(STROKES, [np.flatnonzero(voxels.ravel(order="F")).tolist(), inside])
    user.idle()
    drawn = user.voxels()
    assert np.array_equal(drawn == 1, truth)
    return drawn


def test_clicks_on_real_mr_are_corrected_saved_and_trained_on(url: str, tmp_path: Path) -> None:
    centre = centre_of_lesion(SHIPPED / "labels" / "brain1.nii.gz")
    with open_annotator(url) as user:
        user.page.select_option("#strategy", "first")
        user.page.click("#next-case")
        user.opened("brain1")
        expect(user.page.locator("#why")).to_contain_text("first unlabelled")
        expect(user.page.locator("#case-facts")).to_contain_text("MR")
        user.click(centre)
        first = user.voxels()
        assert np.array_equal(first, server_mask(url, tmp_path, "brain1", foreground=[centre]))
        missing = np.argwhere(truth_of("brain1") & (first == 0))
        second = [int(at) for at in missing[len(missing) // 2]]
        user.click(second)
        assert np.array_equal(user.voxels(), server_mask(url, tmp_path, "brain1", foreground=[centre, second]))
        assert user.voxels()[tuple(second)] == 1
        user.picture("annotate-mr")
        user.page.click("#clear")
        for case in sorted(REAL):
            user.opened(case)
            drawn = annotate(user, case)
            user.page.click("#save-next")
            user.until(
                f"sam3d.session.image !== '{case}' || document.getElementById('why').innerText.startsWith('All')"
            )
            assert np.array_equal(saved(url, tmp_path, case).get_fdata(), drawn)
        expect(user.page.locator("#why")).to_have_text("All cases are labelled.")

        user.page.click("#to-learn")
        expect(user.page.locator("#sides")).to_contain_text("5 of 5 images labelled", timeout=20_000)
        train_on_the_page(user, 1, TRAINING_SECONDS)
        user.picture("learn")
        check_scores(user, url)
        activate_on_the_page(user)
        user.page.click("#to-annotate")
        user.open("brain1")
        user.page.click("#clear")
        user.click(centre)
        after = user.voxels()
        assert np.array_equal(after, server_mask(url, tmp_path, "brain1", foreground=[centre]))
        assert not np.array_equal(after, first), "the new version segments"


def check_scores(user: Page, url: str) -> None:
    """Compare the row of version 0001 with its report: the gate publishes it only if no score has fallen."""
    (version,) = httpx.get(f"{url}/sam3d/state").json()["versions"]
    candidate, before = version["means"]["candidate"], version["means"]["serving"]
    row = user.page.inner_text("#versions tbody tr")
    assert f"{candidate['dice_1']:.3f}" in row
    assert version["reason"].split(";")[0] in row
    if version["passes"]:
        assert all(candidate[metric] >= before[metric] - 0.01 for metric in ("dice_1", "dice_3", "nsd_3"))
    else:
        assert version["reason"].startswith("worse on")
