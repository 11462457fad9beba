"""A training that is started on the page."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.helpers.page import Page


def train_on_the_page(user: Page, epochs: int, seconds: float) -> None:
    """Start a training, wait for version 0001 and for its point in the learning curve.

    Args:
        user: The page, with its part *Learn* open.
        epochs: How many.
        seconds: How long it may take.
    """
    user.page.fill("#epochs", str(epochs))
    user.page.click("#train")
    expect(user.page.locator("#stop")).to_be_visible(timeout=30_000)
    expect(user.page.locator("#train")).to_be_disabled()
    user.until("document.querySelector('#versions tbody tr td')?.innerText === '0001'", seconds)
    user.until("document.getElementById('stop').hidden", seconds)
    user.until("document.querySelectorAll('#curve circle').length >= 2")
    expect(user.page.locator("#training")).to_contain_text("0001")


def activate_on_the_page(user: Page) -> None:
    """Activate version 0001 where the gate has rejected it."""
    if user.page.is_visible("button[data-version='0001']"):
        user.page.click("button[data-version='0001']")
        user.page.click("#confirm button[value=yes]")
    expect(user.page.locator("#summary")).to_contain_text("active version: 0001", timeout=20_000)
