"""The whole way with the shipped weights and real MR: clicks, corrections, labels, a training, a better version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import expect

from sam3d_label.cli.serve import centre_of_lesion
from sam3d_label.masks import dice
from tests.helpers.app_helpers import serve
from tests.helpers.page import Page, open_annotator, saved, server_mask
from tests.helpers.training import train_on_the_page

pytestmark = pytest.mark.e2e

TRAIN, VALIDATION = 5, 3
"""Labelled cases. With fewer validation cases, the update would train up to three times more, without a case each."""

SALT = "journey 3"
"""Of the ledger: its hash assigns that many of the first eight hippocampi to each split."""

EPOCHS = 3
"""Of 32 steps: four for each labelled case."""

TRAINING_SECONDS = 1800
STROKES = "([voxels, inside]) => sam3d.session.brush(voxels, inside)"


class Hippocampi:
    """The first hippocampi of the real volumes; the last of them is held out.

    Args:
        folder: With images and labels; the labels have values for two parts of the hippocampus.
    """

    def __init__(self, folder: Path) -> None:
        self._labels = folder / "labels"
        self.images = sorted((folder / "images").glob("*.nii.gz"))[: TRAIN + VALIDATION + 1]
        *self.labelled, self.held_out = [image.name.removesuffix(".nii.gz") for image in self.images]

    def truth(self, case: str) -> np.ndarray:
        """The whole hippocampus, bool (I, J, K)."""
        return np.asarray(nib.Nifti1Image.from_filename(self._labels / f"{case}.nii.gz").dataobj) > 0

    def centre(self, case: str) -> list[int]:
        """Its deepest voxel."""
        return centre_of_lesion(self._labels / f"{case}.nii.gz")


@pytest.fixture(scope="module")
def hippocampi(real_data: Path) -> Hippocampi:
    return Hippocampi(real_data / "hippocampus")


@pytest.fixture(scope="module")
def url(hippocampi: Hippocampi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server for a team that segments nothing but hippocampi, without their labels."""
    folder = tmp_path_factory.mktemp("journey")
    ledger = folder / "studies" / ".sam3d" / "ledger.json"
    ledger.parent.mkdir(parents=True)
    ledger.write_text(json.dumps({"salt": SALT, "share": 0.2}))
    for image in hippocampi.images:
        shutil.copy(image, folder / "studies")
    conf = {"reference_limit": "none", "reference_seconds": "0", "labels": "hippocampus"}
    arguments = [word for key, value in conf.items() for word in ("--conf", key, value)]
    with serve(["--studies", str(folder / "studies"), *arguments], folder) as address:
        yield address


def test_clicks_on_real_mr_are_corrected_and_saved_and_improve_the_model(
    hippocampi: Hippocampi, url: str, tmp_path: Path
) -> None:
    case = hippocampi.labelled[0]
    truth, centre = hippocampi.truth(case), hippocampi.centre(case)
    with open_annotator(url) as user:
        user.page.select_option("#strategy", "first")
        user.page.click("#next-case")
        user.opened(case)
        expect(user.page.locator("#why")).to_contain_text("first unlabelled")
        expect(user.page.locator("#case-facts")).to_contain_text("MR")
        user.click(centre)
        first = user.voxels()
        assert np.array_equal(first, server_mask(url, tmp_path, case, label="hippocampus", foreground=[centre]))
        missing = np.argwhere(truth & (first == 0))
        second = [int(at) for at in missing[len(missing) // 2]]
        user.click(second)
        clicks = [centre, second]
        assert np.array_equal(user.voxels(), server_mask(url, tmp_path, case, label="hippocampus", foreground=clicks))
        assert user.voxels()[tuple(second)] == 1
        user.picture("annotate-mr")
        user.page.click("#clear")
        for case in hippocampi.labelled:
            user.opened(case)
            drawn = annotate(user, hippocampi.centre(case), hippocampi.truth(case))
            user.page.click("#save-next")
            user.until(f"sam3d.session.image !== '{case}'")
            assert np.array_equal(saved(url, tmp_path, case).get_fdata(), drawn)
        user.opened(hippocampi.held_out)
        before = dice_after_a_click(user, hippocampi)

        user.page.click("#to-learn")
        train_on_the_page(user, EPOCHS, TRAINING_SECONDS)
        user.picture("learn")
        check_better(user, url)

        user.page.click("#to-annotate")
        user.page.click("#clear")
        after = dice_after_a_click(user, hippocampi)
        print(f"{hippocampi.held_out}, which the server has no label of: Dice@1 {before:.3f} → {after:.3f}")
        assert after > before


def annotate(user: Page, centre: list[int], truth: np.ndarray) -> np.ndarray:
    """Click once in the middle, then paint and erase until the mask is that of the expert."""
    user.click(centre)
    assert user.voxels().any()
    for voxels, inside in ((truth & (user.voxels() == 0), True), (~truth & (user.voxels() == 1), False)):
        user.page.evaluate(STROKES, [np.flatnonzero(voxels.ravel(order="F")).tolist(), inside])
    user.idle()
    drawn = user.voxels()
    assert np.array_equal(drawn == 1, truth)
    return drawn


def dice_after_a_click(user: Page, hippocampi: Hippocampi) -> float:
    """Click once on the held-out hippocampus, which is open."""
    user.click(hippocampi.centre(hippocampi.held_out))
    return dice(user.voxels() == 1, hippocampi.truth(hippocampi.held_out))


def check_better(user: Page, url: str) -> None:
    """Check that the gate has activated version 0001, which is better in every score, and that the page shows it."""
    state = httpx.get(f"{url}/sam3d/state").json()
    (version,) = state["versions"]
    after, before = version["means"]["candidate"], version["means"]["serving"]
    print(f"{version['reason']}; {version['seconds']} seconds")
    assert all(after[metric] > before[metric] for metric in ("dice_1", "dice_3", "dice_5", "nsd_3"))
    assert [(each["version"], each["by"]) for each in state["history"]] == [("0001", "gate")]
    expect(user.page.locator("#summary")).to_contain_text("active version: 0001")
    expect(user.page.locator("#sides")).to_contain_text(f"{TRAIN} training cases, {VALIDATION} validation cases")
    row = user.page.inner_text("#versions tbody tr")
    assert f"{after['dice_1']:.3f}" in row
    assert version["reason"].split(";")[0] in row
