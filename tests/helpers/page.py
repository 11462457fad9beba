"""The page as an annotator uses it: by clicks, drags, keys and the wheel."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np

from sam3d_label.cli.serve import centre_of_lesion
from tests.helpers.app_helpers import wait
from tests.helpers.browser import browser, open_page

SECONDS = 120
SAMPLES = Path(__file__).resolve().parents[2] / "sample-data"
CASE = "phantom_000"
CENTRE = centre_of_lesion(SAMPLES / "labels" / f"{CASE}.nii.gz")
AXIAL, CORONAL, SAGITTAL = 0, 1, 2
PLACE = """([plane, ijk]) => {
    const tile = sam3d.viewer.slices.findIndex(slice => slice.axCorSag === plane)
    return sam3d.viewer.project(ijk, tile)
}"""
VOXELS = """() => {
    const data = sam3d.session.map.stored()
    const runs = []
    for (let start = 0; start < data.length; ) {
        let end = start + 1
        while (end < data.length && data[end] === data[start]) end++
        if (data[start]) runs.push([start, end, data[start]])
        start = end
    }
    return [sam3d.session.view.shape, runs]
}"""
"""The label map as runs: the page's security policy lets no test read an array of bytes faster."""


class Page:
    """The page in a browser.

    Args:
        page: A page of the browser, on the server's page.
        errors: What its console has reported.
    """

    def __init__(self, page: Any, errors: list[str]) -> None:
        self.page, self.errors = page, errors

    def until(self, condition: str, seconds: float = SECONDS) -> None:
        """Wait for a condition in JavaScript; the security policy rejects Playwright's own way."""
        wait(lambda: self.page.evaluate(condition), f"{condition}; {self.message()}", seconds)

    def message(self) -> str:
        """The message for people at the top; empty when there is none."""
        return str(self.page.inner_text("#problem-text")) if self.page.is_visible("#problem") else ""

    def open(self, image: str) -> None:
        """Open a case from the list."""
        self.page.click(f"#case-list [data-image='{image}']")
        self.opened(image)

    def opened(self, image: str) -> None:
        """Wait until a case is open and drawn."""
        self.until(f"sam3d.session.image === '{image}' && document.getElementById('welcome').hidden")
        self.draw()

    def draw(self) -> None:
        """Wait until what has changed is on the screen."""
        self.page.evaluate("sam3d.viewer.frame()")

    def idle(self) -> None:
        """Wait until no answer is pending."""
        self.until("!sam3d.session.requests.size && document.getElementById('working').hidden")
        self.draw()

    def place(self, ijk: Sequence[float], plane: int = AXIAL) -> tuple[float, float]:
        """Where a voxel is on the screen, with the crosshair moved to it."""
        self.page.evaluate("ijk => sam3d.viewer.moveTo(ijk)", [round(at) for at in ijk])
        self.draw()
        found = self.page.evaluate(PLACE, [plane, list(ijk)])
        box = self.page.locator("#marks").bounding_box()
        return box["x"] + found["x"], box["y"] + found["y"]

    def click(self, ijk: Sequence[int], *, button: str = "left", plane: int = AXIAL, key: str = "") -> None:
        """Click on a voxel, with a key held, and wait for the mask."""
        x, y = self.place(ijk, plane)
        if key:
            self.page.keyboard.down(key)
        self.page.mouse.click(x, y, button=button)
        if key:
            self.page.keyboard.up(key)
        self.idle()

    def drag(self, start: Sequence[float], end: Sequence[float], plane: int = AXIAL) -> None:
        """Drag from one voxel of a slice to another, with the left button."""
        x1, y1 = self.place(end, plane)
        x0, y0 = self.place(start, plane)
        self.page.mouse.move(x0, y0)
        self.page.mouse.down()
        self.page.mouse.move((x0 + x1) / 2, (y0 + y1) / 2, steps=4)
        self.page.mouse.move(x1, y1, steps=4)
        self.page.mouse.up()
        self.idle()

    def press(self, keys: str) -> None:
        """Press keys with the focus on the image, and wait for the mask."""
        self.page.locator("#marks").focus()
        self.page.keyboard.press(keys)
        self.idle()

    def voxels(self) -> np.ndarray:
        """The label map on the screen, (I, J, K)."""
        shape, runs = self.page.evaluate(VOXELS)
        flat = np.zeros(int(np.prod(shape)), np.uint8)
        for start, end, value in runs:
            flat[start:end] = value
        return flat.reshape(shape, order="F")

    def prompts(self) -> dict[str, Any]:
        """Prompts of the active label."""
        found = "(({ foreground, background, roi }) => ({ foreground, background, roi }))(sam3d.session.layer)"
        return dict(self.page.evaluate(found))

    def picture(self, name: str) -> None:
        """Keep what is seen as `page-NAME.png` in $SAM3D_SCREENSHOTS, when that is set."""
        if folder := os.environ.get("SAM3D_SCREENSHOTS"):
            self.page.screenshot(path=f"{folder}/page-{name}.png")


@contextmanager
def open_annotator(
    url: str, width: int = 1280, height: int = 800, *, part: str = "", touch: bool = False
) -> Iterator[Page]:
    """Open the page of a server in a browser, and check at the end that its console has reported no error.

    Args:
        url: The server's address.
        width: Of the window.
        height: Of the window.
        part: Part of the page, the address after #.
        touch: Whether the browser has a touch screen.
    """
    with browser() as chromium:
        page, errors = open_page(chromium, f"{url}/sam3d/{part}", width, height, touch)
        user = Page(page, errors)
        user.until("document.querySelector('#case-list li') !== null")
        yield user
        assert errors == []


def server_mask(url: str, folder: Path, image: str = CASE, **params: Any) -> np.ndarray:
    """What the server answers to the same prompts, as a script gets it: the whole grid."""
    sent = {"params": json.dumps({"label": "tumor", "result_extension": ".nii.gz", **params})}
    answer = httpx.post(f"{url}/infer/sam3d", params={"image": image, "output": "image"}, data=sent, timeout=120)
    assert answer.status_code == 200, answer.text
    file = folder / "mask.nii.gz"
    file.write_bytes(answer.content)
    return np.asarray(nib.Nifti1Image.from_filename(file).dataobj)


def saved(url: str, folder: Path, image: str = CASE) -> nib.Nifti1Image:
    """The final label of an image."""
    answer = httpx.get(f"{url}/datastore/label", params={"label": image, "tag": "final"})
    assert answer.status_code == 200, answer.text
    (folder / "saved.nii.gz").write_bytes(answer.content)
    return nib.Nifti1Image.from_filename(folder / "saved.nii.gz")
