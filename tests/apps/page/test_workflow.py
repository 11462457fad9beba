"""Saving in the browser: on the image's grid, opened again with clicks and strokes, and not forgotten."""

from __future__ import annotations

from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import expect

from tests.helpers.page import CASE, CENTRE, SAMPLES, Page, saved, server_mask

pytestmark = pytest.mark.slow


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


def test_back_forward_and_the_address_open_cases(user: Page) -> None:
    user.open("phantom_001")
    user.page.go_back()
    user.opened(CASE)
    user.page.go_forward()
    user.opened("phantom_001")
    user.click(CENTRE)
    user.page.go_back()
    expect(user.page.locator("#question")).to_contain_text("not saved")
    user.page.click("#confirm button[value=no]")
    user.until("location.hash === '#/annotate/phantom_001'")
    assert user.voxels().any()
    user.page.evaluate("location.hash = '#/learn'")
    expect(user.page.locator("#curve-card")).to_be_visible()
    user.page.click("#to-annotate")
    user.until("location.hash === '#/annotate/phantom_001'")
    assert user.voxels().any(), "the case stays open"
    user.page.evaluate("location.hash = '#/annotate/phantom_002'")
    user.page.click("#confirm button[value=yes]")
    user.opened("phantom_002")


def test_saving_waits_for_the_mask_of_the_latest_click(user: Page, url: str, tmp_path: Path) -> None:
    user.click(CENTRE)
    second = [CENTRE[0], CENTRE[1] + 10, CENTRE[2] - 3]
    user.page.mouse.click(*user.place(second))
    user.page.keyboard.press("Control+s")
    expect(user.page.locator("#saved")).to_have_text("Saved as final label", timeout=60_000)
    assert user.prompts()["foreground"][-1] == second
    assert np.array_equal(np.asarray(saved(url, tmp_path).dataobj), user.voxels())


def test_a_label_that_somebody_else_has_saved_meanwhile_is_not_replaced_without_a_question(
    user: Page, url: str, tmp_path: Path
) -> None:
    user.click(CENTRE)
    theirs = nib.Nifti1Image(
        np.ones_like(user.voxels()), nib.Nifti1Image.from_filename(SAMPLES / "images" / f"{CASE}.nii.gz").affine
    )
    nib.save(theirs, tmp_path / "theirs.nii.gz")
    with (tmp_path / "theirs.nii.gz").open("rb") as file:
        to, sent = {"image": CASE, "tag": "final"}, {"label": ("theirs.nii.gz", file)}
        assert httpx.put(f"{url}/datastore/label", params=to, files=sent).status_code == 200
    user.page.dblclick("#save")
    expect(user.page.locator("#question")).to_contain_text("has saved a label")
    user.page.click("#confirm button[value=no]")
    expect(user.page.locator("#saved")).to_have_text("Not saved yet")
    assert np.asarray(saved(url, tmp_path).dataobj).all()
    user.page.wait_for_timeout(500)  # the page learns of the answer in a later task
    user.press("Control+s")
    user.page.click("#confirm button[value=yes]")
    expect(user.page.locator("#saved")).to_have_text("Saved as final label")
    assert np.array_equal(np.asarray(saved(url, tmp_path).dataobj), user.voxels())


def test_a_login_that_has_ended_loses_nothing(user: Page) -> None:
    user.click(CENTRE)
    user.page.route("**/datastore/label**", lambda route: route.fulfill(status=401, body='{"detail": "Log in"}'))
    user.press("Control+s")
    user.until("!document.getElementById('problem').hidden")
    assert "Log in again in another tab" in user.message()
    assert user.voxels().any()
    user.page.unroute("**/datastore/label**")
    user.press("Control+s")
    expect(user.page.locator("#saved")).to_have_text("Saved as final label", timeout=60_000)
    user.errors[:] = [error for error in user.errors if "401" not in error]
