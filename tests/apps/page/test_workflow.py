"""From the first click to a better version, with only a browser: save, open again, next case, train, go back."""

from __future__ import annotations

from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import expect

from sam3d_label.cli.serve import centre_of_lesion
from tests.helpers.page import CASE, CENTRE, SAMPLES, Page, open_annotator, server_mask

pytestmark = pytest.mark.slow

TRAINING_SECONDS = 500


def saved(url: str, folder: Path, image: str = CASE) -> nib.Nifti1Image:
    """The final label of an image."""
    answer = httpx.get(f"{url}/datastore/label", params={"label": image, "tag": "final"})
    assert answer.status_code == 200, answer.text
    (folder / "saved.nii.gz").write_bytes(answer.content)
    return nib.Nifti1Image.from_filename(folder / "saved.nii.gz")


def test_a_label_is_saved_on_the_grid_of_its_image_and_opened_again_with_its_clicks(
    user: Page, url: str, tmp_path: Path
) -> None:
    user.click(CENTRE)
    user.press("4")
    user.drag([CENTRE[0], CENTRE[1] + 55, CENTRE[2]], [CENTRE[0] + 5, CENTRE[1] + 55, CENTRE[2]])
    drawn = user.voxels()
    expect(user.page.locator("#saved")).to_have_text("Not saved yet")
    user.press("Control+s")
    expect(user.page.locator("#saved")).to_have_text("Saved as final label")
    label, image = saved(url, tmp_path), nib.Nifti1Image.from_filename(SAMPLES / "images" / f"{CASE}.nii.gz")
    assert np.array_equal(np.asarray(label.dataobj), drawn)
    np.testing.assert_allclose(label.affine, image.affine, atol=1e-5)
    record = httpx.get(f"{url}/datastore/label/info", params={"label": CASE, "tag": "final"}).json()
    assert [(each["name"], each["idx"]) for each in record["label_info"]] == [("tumor", 1)]
    expect(user.page.locator(f"[data-image='{CASE}'] .mark")).to_have_text("✓")

    user.open("phantom_001")
    assert not user.voxels().any()
    user.open(CASE)
    assert np.array_equal(user.voxels(), drawn)
    assert user.prompts()["foreground"] == [CENTRE]
    user.press("1")
    second = [CENTRE[0], CENTRE[1] + 8, CENTRE[2] - 6]
    user.click(second)
    strokes = drawn > server_mask(url, tmp_path, foreground=[CENTRE])
    assert strokes.any()
    expected = np.where(strokes, 1, server_mask(url, tmp_path, foreground=[CENTRE, second]))
    assert np.array_equal(user.voxels(), expected), "brush strokes of the saved label stay"
    user.press("Control+s")
    expect(user.page.locator("#saved")).to_have_text("Saved as final label")
    assert np.array_equal(np.asarray(saved(url, tmp_path).dataobj), expected)


def test_unsaved_changes_are_not_left_without_a_question(user: Page) -> None:
    user.click(CENTRE)
    user.page.click("#case-list [data-image='phantom_001']")
    expect(user.page.locator("#question")).to_contain_text("not saved")
    user.page.click("#confirm button[value=no]")
    assert user.page.evaluate("sam3d.session.image") == CASE
    assert user.voxels().any()


def test_five_clicks_and_saves_then_a_training_make_a_version(url: str, tmp_path: Path) -> None:
    """Labels of all samples, of which the last is made by the page's own next case, then one epoch."""
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
