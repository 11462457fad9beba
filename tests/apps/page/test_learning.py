"""A person with only a browser annotates five cases, trains an epoch, and uses the new version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from tests.helpers.app_helpers import CENTRE, ball, serve, write_nifti
from tests.helpers.page import open_annotator, saved, server_mask
from tests.helpers.training import activate_on_the_page, train_on_the_page

pytestmark = pytest.mark.slow

CASES = [f"mr_{number}" for number in range(5)]
TRAINING_SECONDS = 300


@pytest.fixture(scope="module")
def url(weights_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a small network and five images, each with a bright ball."""
    folder = tmp_path_factory.mktemp("learning")
    (folder / "studies").mkdir()
    for number, case in enumerate(CASES):
        write_nifti(folder / "studies" / f"{case}.nii.gz", ball() + 3 * number)
    arguments = ["--studies", str(folder / "studies")]
    for key, value in {"weights": str(weights_path), "reference_limit": "none", "reference_seconds": "0"}.items():
        arguments += ["--conf", key, value]
    with serve(arguments, folder) as address:
        yield address


def test_five_cases_are_annotated_and_make_a_version(url: str, tmp_path: Path) -> None:
    with open_annotator(url) as user:
        user.page.select_option("#strategy", "first")
        user.page.click("#next-case")
        for case in CASES:
            user.opened(case)
            user.click(CENTRE)
            user.press("4")
            user.page.check("#ball")
            for _ in range(2):
                user.press("]")
            user.drag(CENTRE, CENTRE)
            drawn = user.voxels()
            assert drawn[tuple(CENTRE)] == 1
            user.press("1")
            user.press("Control+Enter")
            user.until(
                f"sam3d.session.image !== '{case}' || document.getElementById('why').innerText.startsWith('All')"
            )
            assert np.array_equal(saved(url, tmp_path, case).get_fdata(), drawn)
        expect(user.page.locator("#why")).to_have_text("All cases are labelled.")
        expect(user.page.locator("#case-count")).to_have_text("5 of 5 labelled")

        user.page.click("#to-learn")
        expect(user.page.locator("#sides")).to_contain_text("5 of 5 images labelled", timeout=20_000)
        train_on_the_page(user, 1, TRAINING_SECONDS)
        activate_on_the_page(user)

        user.page.click("#to-annotate")
        user.open(CASES[0])
        user.page.click("#clear")
        user.click(CENTRE)
        assert np.array_equal(user.voxels(), server_mask(url, tmp_path, CASES[0], foreground=[CENTRE]))
        user.page.click("#to-learn")
        user.page.click("#rollback")
        user.page.click("#confirm button[value=yes]")
        expect(user.page.locator("#summary")).to_contain_text("active weights", timeout=20_000)


def test_a_training_is_stopped_and_nothing_is_changed(url: str) -> None:
    before = httpx.get(f"{url}/sam3d/state").json()["serving"]["version"]
    with open_annotator(url, part="#/learn") as user:
        user.page.fill("#epochs", "500")
        user.page.click("#train")
        expect(user.page.locator("#stop")).to_be_visible(timeout=20_000)
        user.page.click("#stop")
        user.page.click("#confirm button[value=yes]")
        user.until("document.getElementById('stop').hidden && !document.getElementById('train').disabled", 60)
        assert "was stopped" in user.page.inner_text("#training")
    assert httpx.get(f"{url}/sam3d/state").json()["serving"]["version"] == before
