"""The page on screens of several sizes, with the keyboard, by touch, and when something goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.helpers.page import CASE, CENTRE, Page, open_annotator, server_mask

pytestmark = pytest.mark.slow

NAMELESS = """() => [...document.querySelectorAll('button, input, select, a, canvas[tabindex]')]
    .filter(each => each.checkVisibility())
    .filter(each => !(each.ariaLabel || each.innerText?.trim() || each.labels?.length || each.title))
    .map(each => each.outerHTML)"""
CONTRAST = """() => {
    const numbers = text => (text.match(/[\\d.]+/g) ?? []).map(Number)
    const light = ([r, g, b]) => [r, g, b].map(each => each / 255)
        .map(each => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
        .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0)
    const ground = element => {
        for (let each = element; each; each = each.parentElement) {
            const colour = numbers(getComputedStyle(each).backgroundColor)
            if (colour.length === 3 || colour[3] > 0.8) return colour
        }
        return [0, 0, 0]
    }
    return [...document.querySelectorAll('body *')]
        .filter(each => each.checkVisibility() && !each.disabled && !each.closest('svg'))
        .filter(each => [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
        .map(each => {
            const [one, two] = [light(numbers(getComputedStyle(each).color)), light(ground(each))]
            return [(Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05), each.outerHTML.slice(0, 120)]
        })
        .filter(([ratio]) => ratio < 4.5)
}"""


@pytest.mark.parametrize("part", ["", "#/learn"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (834, 1112), (390, 844)])
def test_nothing_is_cut_off_and_everything_is_readable(url: str, width: int, height: int, part: str) -> None:
    with open_annotator(url, width, height, part=part) as user:
        if not part:
            user.open(CASE)
            view = user.page.locator("#view").bounding_box()
            assert min(view["width"], view["height"]) > 350
            user.picture(f"annotate-{width}")
        assert user.page.evaluate("document.documentElement.scrollWidth") <= width
        assert user.page.evaluate(NAMELESS) == []
        assert user.page.evaluate(CONTRAST) == []


def test_a_case_is_opened_clicked_and_undone_with_the_keyboard(url: str, tmp_path: Path) -> None:
    with open_annotator(url) as user:
        user.page.locator(f"[data-image={CASE}]").focus()
        user.page.keyboard.press("Enter")
        user.opened(CASE)
        assert user.page.evaluate("document.activeElement.id") == "marks", "the image has the focus"
        user.page.evaluate("ijk => sam3d.viewer.moveTo(ijk)", [CENTRE[0], CENTRE[1], CENTRE[2] - 2])
        user.press("PageUp")
        user.press("PageUp")
        user.press("Enter")
        assert user.prompts()["foreground"] == [CENTRE]
        assert np.array_equal(user.voxels(), server_mask(url, tmp_path, foreground=[CENTRE]))
        user.press("Control+z")
        assert not user.voxels().any()
        user.page.keyboard.press("?")
        expect(user.page.locator("#help")).to_be_visible()
        user.picture("help")
        user.page.keyboard.press("Escape")
        expect(user.page.locator("#help")).to_be_hidden()


def test_a_tap_is_a_click_and_the_tool_outside_makes_the_other(url: str) -> None:
    with open_annotator(url, 834, 1112, touch=True) as user:
        user.open(CASE)
        user.page.touchscreen.tap(*user.place(CENTRE))
        user.idle()
        assert user.prompts()["foreground"] == [CENTRE]
        user.page.tap("[data-tool=outside]")
        outside = [CENTRE[0] - 30, CENTRE[1], CENTRE[2]]
        user.page.touchscreen.tap(*user.place(outside))
        user.idle()
        assert user.prompts()["background"] == [outside]


def test_words_are_explained_by_keyboard_and_by_touch(url: str) -> None:
    with open_annotator(url, 390, 844, part="#/learn", touch=True) as user:
        word, explanation = user.page.locator("#curve-card [data-term='Dice@1']"), user.page.locator("#explanation")
        word.focus()
        user.page.keyboard.press("Enter")
        expect(explanation).to_have_text("Dice of the mask after one click inside the target")
        box = explanation.bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= 390
        user.page.keyboard.press("Escape")
        expect(explanation).to_be_empty()
        user.page.tap("#versions [data-term='Gate']")
        expect(explanation).to_contain_text("at least as good as the active version")
        user.picture("explanation")
        user.page.tap("#versions-card h2")
        expect(explanation).to_be_empty()


def test_a_busy_server_is_named_and_the_click_stays(user: Page) -> None:
    def busy(route: Any) -> None:
        detail = json.dumps({"detail": "The server is busy: 128 requests wait"})
        route.fulfill(status=503, content_type="application/json", body=detail)

    user.page.route("**/infer/**", busy)
    user.click(CENTRE)
    assert "try again in a few seconds" in user.message()
    assert "does not show the latest click yet" in user.message()
    assert user.prompts()["foreground"] == [CENTRE]
    assert not user.voxels().any()
    user.page.unroute("**/infer/**")
    user.page.click("#retry")
    user.idle()
    assert user.voxels().any()
    assert user.message() == ""
    user.errors[:] = [error for error in user.errors if "503" not in error]


def test_a_rejected_click_is_taken_back_with_the_servers_reason(user: Page) -> None:
    user.click(CENTRE)
    mask = user.voxels()

    def reject(route: Any) -> None:
        route.fulfill(status=400, content_type="application/json", body='{"detail": "no such prompts here"}')

    user.page.route("**/infer/**", reject)
    user.click([CENTRE[0], CENTRE[1] + 8, CENTRE[2]])
    assert user.message() == "no such prompts here"
    assert user.prompts()["foreground"] == [CENTRE]
    assert np.array_equal(user.voxels(), mask)
    user.errors[:] = [error for error in user.errors if "400" not in error]


def test_an_unknown_case_in_the_address_is_named(url: str) -> None:
    with open_annotator(url, part="#/annotate/other") as user:
        user.until("document.getElementById('welcome-title').innerText === 'This case cannot be opened'")
        assert "There is no image 'other'" in user.message()
        user.errors[:] = [error for error in user.errors if "404" not in error]
        user.open(CASE)
        assert user.message() == ""
