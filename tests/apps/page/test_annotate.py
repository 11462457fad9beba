"""Clicks in the browser: on every plane, undone and redone, for several labels; and what the wheel and keys do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.helpers.page import AXIAL, CENTRE, CORONAL, SAGITTAL, Page, server_mask

pytestmark = pytest.mark.slow

OUTSIDE = [CENTRE[0], CENTRE[1] + 60, CENTRE[2]]


def test_clicks_on_each_plane_give_the_servers_voxels(user: Page, url: str, tmp_path: Path) -> None:
    user.click(CENTRE, plane=AXIAL)
    assert user.prompts()["foreground"] == [CENTRE]
    first = user.voxels()
    assert np.array_equal(first, server_mask(url, tmp_path, foreground=[CENTRE]))
    assert first.sum() > 1000
    second = [CENTRE[0], CENTRE[1] + 8, CENTRE[2] - 6]
    user.click(second, plane=SAGITTAL)
    outside = [CENTRE[0] - 30, CENTRE[1], CENTRE[2] - 3]
    user.click(outside, plane=CORONAL, button="right")
    assert user.prompts() == {"foreground": [CENTRE, second], "background": [outside], "roi": None}
    corrected = user.voxels()
    assert np.array_equal(corrected, server_mask(url, tmp_path, foreground=[CENTRE, second], background=[outside]))
    user.picture("annotate")


def test_undo_and_redo_follow_each_click(user: Page) -> None:
    user.click(CENTRE)
    first = user.voxels()
    user.click(OUTSIDE, key="Control")
    assert user.prompts()["background"] == [OUTSIDE]
    second = user.voxels()
    user.press("Control+z")
    assert np.array_equal(user.voxels(), first)
    assert user.prompts() == {"foreground": [CENTRE], "background": [], "roi": None}
    user.page.click("#undo")
    user.idle()
    assert not user.voxels().any()
    user.press("Control+y")
    user.press("Control+Shift+z")
    assert np.array_equal(user.voxels(), second)
    expect(user.page.locator("#redo")).to_be_disabled()


def test_labels_keep_their_voxels_and_colours(user: Page, url: str, tmp_path: Path) -> None:
    user.click(CENTRE)
    tumor = user.voxels() == 1
    user.page.click("[data-label=cyst]")
    assert user.prompts()["foreground"] == []
    other = [CENTRE[0], CENTRE[1], CENTRE[2] - 30]
    user.click(other)
    cyst = server_mask(url, tmp_path, foreground=[other], label="cyst").astype(bool)
    assert np.array_equal(user.voxels() == 2, cyst)
    assert np.array_equal(user.voxels() == 1, tumor & ~cyst)
    user.press("Control+z")
    assert np.array_equal(user.voxels(), tumor.astype(np.uint8)), "a label that leaves uncovers the one below"


def test_wheel_keys_window_and_zoom_change_what_is_seen(user: Page) -> None:
    x, y = user.place(CENTRE)
    user.page.mouse.move(x, y)
    user.page.mouse.wheel(0, 100)
    user.draw()
    assert user.page.evaluate("sam3d.viewer.place") == [*CENTRE[:2], CENTRE[2] - 1]
    user.press("PageUp")
    assert user.page.evaluate("sam3d.viewer.place") == CENTRE
    before = user.page.evaluate("sam3d.viewer.window")
    user.page.select_option("#window", label="Full range")
    user.draw()
    assert user.page.evaluate("sam3d.viewer.window") != before
    user.page.mouse.move(x, y)
    user.page.keyboard.down("Control")
    user.page.mouse.wheel(0, -100)
    user.page.keyboard.up("Control")
    user.draw()
    assert user.page.evaluate("sam3d.viewer.nv.scene.pan2Dxyzmm[3]") == pytest.approx(1.1)
    user.click(CENTRE)
    assert user.prompts()["foreground"] == [CENTRE], "an enlarged image is clicked at the same voxel"
    assert user.page.evaluate("sam3d.viewer.place") == CENTRE


def test_a_click_outside_first_is_explained_and_nothing_is_sent(user: Page) -> None:
    user.click(CENTRE, button="right")
    assert "Click inside the target first" in user.message()
    assert user.prompts()["background"] == []


@pytest.mark.parametrize("layout", ["all", "planes"])
def test_a_mask_is_drawn_soon_after_the_servers_answer(user: Page, layout: str) -> None:
    """The numbers of docs/how-to/page.md, with -rP; other tests on the same cores make them larger."""
    user.page.select_option("#layout", layout)
    added, drawing = [], []
    for step in range(11):
        user.click([CENTRE[0] + step, CENTRE[1], CENTRE[2]])
        timing = user.page.evaluate("sam3d.session.timing")
        added.append(timing["total"] - timing["server"])
        drawing.append(timing["drawing"])
    added, drawing = sorted(added), sorted(drawing)
    print(f"{layout}: added {added[5]:.3f} s (largest {added[-1]:.3f}), from answer to screen {drawing[5]:.3f} s")
    assert added[0] < 1, added
