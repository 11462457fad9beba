"""What corrects a mask besides clicks: boxes, strokes, uncertainty, candidates, and a start without a click."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.helpers.app_helpers import serve
from tests.helpers.page import AXIAL, CASE, CENTRE, SAGITTAL, Page, open_annotator, server_mask

pytestmark = pytest.mark.slow

I0, J0, K0 = CENTRE


def test_a_box_is_dragged_and_corrected_in_another_plane(user: Page, url: str, tmp_path: Path) -> None:
    user.press("3")
    user.drag([I0 - 25, J0 - 30, K0], [I0 + 25, J0 + 30, K0], AXIAL)
    roi = user.prompts()["roi"]
    assert roi[:4] == [I0 - 25, I0 + 26, J0 - 30, J0 + 31]
    user.drag([I0, J0 - 28, K0 - 20], [I0, J0 + 27, K0 + 8], SAGITTAL)
    roi = user.prompts()["roi"]
    assert roi == [I0 - 25, I0 + 26, J0 - 28, J0 + 28, K0 - 20, K0 + 9]
    sent = [edge - at % 2 for at, edge in enumerate(roi)]
    assert np.array_equal(user.voxels(), server_mask(url, tmp_path, roi=sent))
    user.press("1")
    user.click(CENTRE)
    assert np.array_equal(user.voxels(), server_mask(url, tmp_path, roi=sent, foreground=[CENTRE]))
    user.press("Control+z")
    user.press("Control+z")
    user.press("Control+z")
    assert user.prompts()["roi"] is None
    assert not user.voxels().any()


def test_brush_and_eraser_change_what_they_touch_and_outlive_a_click(user: Page, url: str, tmp_path: Path) -> None:
    user.click(CENTRE)
    model = user.voxels()
    far = [I0, J0 + 55, K0]
    assert model[tuple(far)] == 0
    user.press("4")
    user.drag(far, [I0 + 10, J0 + 55, K0])
    brushed = user.voxels()
    added = (brushed != model).nonzero()
    assert set(added[2]) == {K0}, "a disc stays on its slice"
    assert brushed[I0 : I0 + 11, J0 + 55, K0].all()
    user.press("5")
    user.drag([I0, J0, K0], [I0, J0, K0])
    erased = user.voxels()
    assert erased[I0, J0, K0] == 0
    user.press("1")
    second = [I0, J0 + 8, K0 - 6]
    user.click(second)
    after = user.voxels()
    expected = server_mask(url, tmp_path, foreground=[CENTRE, second])
    expected = np.where(brushed > model, 1, np.where(erased < brushed, 0, expected))
    assert np.array_equal(after, expected)
    user.press("Control+z")
    assert np.array_equal(user.voxels(), erased)
    user.press("Control+z")
    assert np.array_equal(user.voxels(), brushed)
    user.press("Control+z")
    assert np.array_equal(user.voxels(), model)


def test_keys_and_another_case_do_not_change_a_stroke_that_is_being_drawn(user: Page) -> None:
    far = [I0, J0 + 55, K0]
    user.press("4")
    x, y = user.place(far)
    mouse, keyboard = user.page.mouse, user.page.keyboard
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 10, y, steps=3)
    for keys in ("5", "1", "Alt+2", "Control+z", "Control+s"):
        keyboard.press(keys)
    mouse.move(x + 20, y, steps=3)
    mouse.up()
    user.idle()
    assert user.page.evaluate("sam3d.session.active") == "tumor"
    assert user.page.evaluate("sam3d.annotator.tool") == "brush"
    assert user.page.evaluate("[...sam3d.session.layer.edits.values()].every(Boolean)")
    assert user.voxels()[tuple(far)] == 1
    expect(user.page.locator("#saved")).to_have_text("Not saved yet")
    user.press("Control+z")
    assert not user.voxels().any()

    user.page.evaluate("sam3d.session.isDirty = false")
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 10, y, steps=3)
    user.page.evaluate("void sam3d.annotator.open('phantom_001')")
    user.opened("phantom_001")
    mouse.move(x + 20, y, steps=3)
    mouse.up()
    user.idle()
    assert not user.voxels().any(), "a stroke on one image does not go on in the next"
    assert not user.page.evaluate("sam3d.session.isDirty")


def test_the_uncertainty_is_shown_with_the_next_click(user: Page) -> None:
    expect(user.page.locator("#uncertainty")).to_be_disabled()
    user.click(CENTRE)
    user.page.click("#uncertainty")
    user.until("sam3d.session.assist.isUncertaintyShown")
    user.draw()
    suggestion = user.page.evaluate("sam3d.session.assist.suggestion")
    assert suggestion == user.page.evaluate("sam3d.viewer.place"), "the crosshair goes there"
    assert user.page.evaluate("sam3d.viewer.nv.volumes.length") == 2
    expect(user.page.locator("#suggestion")).to_contain_text("yellow ring")
    user.picture("uncertainty")
    user.press("Enter")
    assert user.prompts()["foreground"] == [CENTRE, suggestion], "Enter clicks at the crosshair"
    assert user.page.evaluate("sam3d.viewer.nv.volumes.length") == 1, "the map was that of the mask before"


def test_a_start_without_a_click_is_corrected_by_regions(user: Page) -> None:
    user.page.click("#auto")
    user.until("sam3d.session.history.done.length === 1")
    user.idle()
    found = user.voxels()
    assert found.any(), "the sample phantoms are found"
    points = np.argwhere(found)
    inside = [int(at) for at in points[len(points) // 2]]
    user.click(inside, button="right")
    rest = user.voxels()
    assert rest[tuple(inside)] == 0
    assert rest.sum() < found.sum()
    user.press("Control+z")
    assert np.array_equal(user.voxels(), found)
    user.click(inside)
    assert user.voxels()[tuple(inside)] == 1
    assert user.prompts()["foreground"] == [inside]


@pytest.fixture(scope="module")
def single(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with weights that give one mask only."""
    arguments = ["--studies", str(folder / "studies"), "--conf", "weights", "tiny"]
    with serve(arguments, tmp_path_factory.mktemp("single")) as address:
        yield address


def test_weights_without_candidates_say_so(single: str) -> None:
    with open_annotator(single) as user:
        user.open(CASE)
        user.click(CENTRE)
        expect(user.page.locator("#candidates")).to_be_disabled()
        assert "tiny-geodesic" in str(user.page.get_attribute("#candidates", "title"))


def test_candidates_are_the_servers_and_one_is_chosen(url: str, single: str, tmp_path: Path) -> None:
    with open_annotator(url) as user:
        user.open(CASE)
        user.click(CENTRE)
        mask = user.voxels()
        user.page.click("#candidates")
        user.until("sam3d.session.assist.choices.length > 1")
        bits = server_mask(url, tmp_path, foreground=[CENTRE], result="candidates")
        count = int(bits.max()).bit_length()
        for number in range(count):
            user.page.click(f"[data-choice='{number + 1}']")
            user.draw()
            assert np.array_equal(user.voxels(), bits >> number & 1), number
        user.picture("candidates")
        user.page.click("[data-choice='0']")
        assert np.array_equal(user.voxels(), mask)
        user.press("Control+z")
        chosen = bits >> (count - 1) & 1
        assert np.array_equal(user.voxels(), chosen)
        outside = [int(at) for at in np.argwhere(chosen)[-1]]
        user.click(outside, button="right")
        choice = {"foreground": [CENTRE], "number": count - 1}
        prompts: dict[str, Any] = {"foreground": [CENTRE], "background": [outside], "chosen_candidate": choice}
        corrected = user.voxels()
        assert np.array_equal(corrected, server_mask(url, tmp_path, **prompts))
        assert corrected[tuple(outside)] == 0
        assert not (corrected > chosen).any(), "a click outside only takes voxels away from the chosen mask"
        user.press("Control+s")
        expect(user.page.locator("#saved")).to_have_text("Saved as final label")
        user.open("phantom_001")
        user.open(CASE)
        assert np.array_equal(user.voxels(), corrected)
        inside = [int(at) for at in np.argwhere(bits & ~chosen)[0]] if (bits & ~chosen).any() else CENTRE
        user.click(inside)
        prompts["foreground"] = user.prompts()["foreground"]
        assert np.array_equal(user.voxels(), server_mask(url, tmp_path, **prompts)), "the choice is saved too"
    with open_annotator(single) as user:
        user.open(CASE)
        assert np.array_equal(user.voxels(), corrected)
        user.click(inside)
        del prompts["chosen_candidate"]
        assert np.array_equal(user.voxels(), server_mask(single, tmp_path, **prompts)), "other weights do not use it"
        assert "belongs to other weights" in user.message()
