"""OHIF as the monailabel wheel bundles it, worked as an annotator works it: by clicks, keys and the wheel."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.helpers.app_helpers import SCRIPT, serve
from tests.helpers.browser import browser, open_page
from tests.helpers.orthanc import Orthanc

METASTASIS = (113, 300, 21)
"""A voxel of a liver metastasis of CRLM-CT-1004."""

AXIAL = "mpr-axial"
SECONDS = 1000
COLOURS = 192
"""Of a picture that is kept: enough for grey and a few others, at a third of the size."""
AUTO, POINTS, CLASSES = (f"#tab-{number} ~ .tab-content" for number in (2, 3, 4))

VIEWPORT = """id => {
    const viewport = services.cornerstoneViewportService.getCornerstoneViewport(id)
    if (!viewport) return null
"""
LOADED = f"""id => {{
    const viewport = ({VIEWPORT} return viewport }})(id)
    const uid = viewport?.getVolumeId?.()
    return Boolean(uid && cornerstone.cache.getVolume(uid)?.loadStatus?.loaded)
}}"""
SLICE = f"{VIEWPORT} return [viewport.getSliceIndex(), viewport.getNumberOfSlices()] }}"
PLACE = f"""([id, ijk]) => {{
    const viewport = ({VIEWPORT} return viewport }})(id)
    const image = cornerstone.cache.getVolume(viewport.getVolumeId()).imageData
    const box = viewport.element.getBoundingClientRect()
    const [x, y] = viewport.worldToCanvas(image.indexToWorld(ijk))
    return [box.left + x, box.top + y]
}}"""
FOCUS = f"""id => {{
    const viewport = ({VIEWPORT} return viewport }})(id)
    const image = cornerstone.cache.getVolume(viewport.getVolumeId()).imageData
    return Array.from(image.worldToIndex(viewport.getCamera().focalPoint))
}}"""
BOX = f"""{VIEWPORT}
    const box = viewport.element.getBoundingClientRect()
    return [box.left, box.top, box.width, box.height]
}}"""
NOTICES = """() => [...document.querySelectorAll('[data-sonner-toast]:not([data-removed=true])')]
    .map(each => each.innerText)"""
CLICKS = """() => cornerstoneTools.annotation.state.getAllAnnotations()
    .filter(each => each.metadata.toolName === 'ProbeMONAILabel').length"""
ACTIVE = """(() => {
    const { viewports, activeViewportId } = services.viewportGridService.getState()
    const [uid] = viewports.get(activeViewportId).displaySetInstanceUIDs
    const display = services.displaySetService.getDisplaySetByUID(uid)
    const segmentation = services.segmentationService.getActiveSegmentation(activeViewportId)
    const map = segmentation && services.segmentationService.getLabelmapVolume(segmentation.segmentationId)
    return { display, segmentation, map, viewport: activeViewportId }
})()"""
"""What the active viewport shows: a display set, the segmentation that is active on it, and its voxels."""

SHOWN = f"() => {ACTIVE}.display.SeriesInstanceUID"
READY = f"""uid => {{
    const {{ display, map, viewport }} = {ACTIVE}
    const volume = services.cornerstoneViewportService.getCornerstoneViewport(viewport)?.getVolumeId?.()
    if (!map || display.SeriesInstanceUID !== uid || !volume?.endsWith(display.displaySetInstanceUID)) return false
    return Boolean(cornerstone.cache.getVolume(volume)?.loadStatus?.loaded)
}}"""
PAINTED = f"() => Boolean({ACTIVE}.map?.voxelManager?.getCompleteScalarDataArray().some(Boolean))"
RUNS = f"""() => {{
    const {{ map }} = {ACTIVE}
    if (!map) return null
    const values = map.voxelManager.getCompleteScalarDataArray()
    const runs = []
    for (let start = 0; start < values.length; ) {{
        let end = start + 1
        while (end < values.length && values[end] === values[start]) end++
        if (values[start]) runs.push([start, end, values[start]])
        start = end
    }}
    return [Array.from(map.dimensions), runs]
}}"""
SEGMENTS = f"""() => {{
    const segments = Object.values({ACTIVE}.segmentation?.segments ?? {{}}).filter(Boolean)
    return Object.fromEntries(segments.map(each => [each.label, each.segmentIndex]))
}}"""


class Ohif:
    """A study that is open in the mode MONAI Label.

    Args:
        page: A page of the browser.
        server: The server's address.
        study: StudyInstanceUID.
    """

    def __init__(self, page: Any, server: str, study: str) -> None:
        self.page = page
        page.goto(f"{server}/ohif/monai-label?StudyInstanceUIDs={study}")
        self._wait_for_volume()

    def _wait_for_volume(self) -> None:
        self.page.wait_for_selector(".monaiLabelPanel", timeout=60 * SECONDS)
        banner = self.page.get_by_role("button", name="Confirm and Hide")
        if banner.count():
            banner.dispatch_event("click")  # a notice may cover it
        self.page.wait_for_function(LOADED, arg=AXIAL, timeout=120 * SECONDS)

    def connect(self) -> None:
        """Waits until the panel has connected, which it does by itself."""
        self.page.wait_for_selector(".monaiLabelPanel p.subtitle", timeout=60 * SECONDS)

    def choose(self, label: str) -> None:
        """Opens Point Prompts and chooses what clicks mean: a label, or `background` for clicks outside."""
        self.open_points()
        self.page.locator(f"{POINTS} tr.clickable-row", has_text=label).click()

    def open_points(self) -> None:
        """Opens Point Prompts, where the first label is selected."""
        self.page.click("label[for=tab-3]")

    def segment(self, ijk: Sequence[int]) -> None:
        """Clicks on a voxel, and waits for the mask that the click alone asks for."""
        with self.page.expect_response("**/infer/**", timeout=120 * SECONDS) as answer:
            self.click(ijk)
        answer.value.finished()
        self.page.wait_for_timeout(500)

    def run_on_click(self, on: bool) -> None:
        """Sets the switch of Point Prompts."""
        self.page.set_checked("#sam3d-run-on-click", on)

    def tick(self, label: str, on: bool = True) -> None:
        """Opens Class Prompts and ticks a structure."""
        self.page.click("label[for=tab-4]")
        self.page.locator(f"{CLASSES} tr", has_text=label).locator("input").set_checked(on)

    def click(self, ijk: Sequence[int]) -> None:
        """Scrolls the axial view to a voxel and clicks on it, once more when the first click only chose the view."""
        self.scroll_to(ijk[2])
        before = self.page.evaluate(CLICKS)
        x, y = self.page.evaluate(PLACE, [AXIAL, list(ijk)])
        for _ in range(2):
            self.page.mouse.move(x, y)
            self.page.mouse.click(x, y, delay=100)
            self.page.wait_for_timeout(300)
            if self.page.evaluate(CLICKS) > before:
                return
        raise AssertionError(f"no click appeared at {ijk}")

    def enlarge(self) -> None:
        """Double-clicks on the axial view, so that it fills the screen."""
        self.page.mouse.dblclick(*self._middle())
        self.page.wait_for_timeout(1000)

    def _middle(self) -> tuple[float, float]:
        left, top, width, height = self.page.evaluate(BOX, AXIAL)
        return left + width / 2, top + height / 2

    def scroll_to(self, k: int) -> None:
        """Turns the wheel over the axial view until it shows slice k."""
        self.page.mouse.move(*self._middle())
        for _ in range(200):
            off = round(self.page.evaluate(FOCUS, AXIAL)[2]) - k
            if not off:
                return
            now = self.page.evaluate(SLICE, AXIAL)
            self.page.mouse.wheel(0, 100 if off > 0 else -100)
            self.page.wait_for_timeout(50)
            assert now != self.page.evaluate(SLICE, AXIAL)
        raise AssertionError(f"the wheel did not lead to slice {k}")

    def run_unprompted(self) -> None:
        """Opens Auto-Segmentation, presses its Run, and waits for the answer."""
        self.page.click("label[for=tab-2]")
        self.run(AUTO)

    def run(self, tab: str = POINTS) -> None:
        """Presses Run of a tab, and waits for the answer."""
        with self.page.expect_response("**/infer/**", timeout=120 * SECONDS) as answer:
            self.page.click(f"{tab} button.actionButton")
        answer.value.finished()
        self.page.wait_for_timeout(500)

    def notice(self, text: str) -> None:
        """Waits until OHIF shows a notice."""
        self.page.wait_for_selector(f"[data-sonner-toast]:has-text({text!r})", timeout=60 * SECONDS)

    def notices(self) -> list[str]:
        """Return the notices that OHIF shows, once one that replaces another has done so."""
        self.page.wait_for_timeout(500)
        return list(self.page.evaluate(NOTICES))

    def wait_without_notices(self) -> None:
        """Waits until OHIF shows no notice."""
        self.page.wait_for_selector("[data-sonner-toast]", state="detached", timeout=60 * SECONDS)

    def save_label(self) -> None:
        """Presses the button that saves what is painted."""
        self.page.click("[data-cy=SaveLabel]")
        self.notice("Saved as a label")

    def wait_for_saved_label(self) -> None:
        """Waits until the saved label of the series is painted."""
        self.page.wait_for_function(PAINTED, timeout=60 * SECONDS)

    def open_series(self, series: str) -> None:
        """Double-clicks a series without a picture in the list on the left."""
        shown = self.page.evaluate(
            "uid => services.displaySetService.getDisplaySetsForSeries(uid)[0].displaySetInstanceUID", series
        )
        self.page.dblclick(f"#thumbnail-{shown}")

    def show_series(self, series: str) -> None:
        """Double-clicks a series of images, and waits until it is shown with its segmentation."""
        self.open_series(series)
        self.page.wait_for_function(READY, arg=series, timeout=60 * SECONDS)
        self.page.wait_for_timeout(500)

    def shown_series(self) -> str:
        """SeriesInstanceUID of what the active view shows."""
        return str(self.page.evaluate(SHOWN))

    def next_sample(self) -> None:
        """Presses Next Sample and OK, and waits until the panel has connected on the page that follows."""
        self.open_learning()
        self.page.get_by_role("button", name="Next Sample").click()
        with self.page.expect_navigation():
            self.page.click(".nextSampleForm button.actionButton")
        self._wait_for_volume()
        self.connect()

    def take(self, tool: str, segment: str, radius: float) -> None:
        """Takes the `Brush` or the `Eraser`, as a sphere, for a segment."""
        self.page.get_by_text(segment, exact=True).last.click()
        self.page.click(f"[data-cy={tool}]")
        self.page.get_by_text("Sphere", exact=True).click()
        size = self.page.locator("input.input-number")
        size.fill(str(radius))
        size.press("Enter")

    def stroke(self, *way: Sequence[int]) -> None:
        """Draws the tool over voxels of one axial slice."""
        self.scroll_to(way[0][2])
        places = [self.page.evaluate(PLACE, [AXIAL, list(ijk)]) for ijk in way]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=3)
        self.page.wait_for_timeout(200)
        self.page.mouse.up()
        self.page.wait_for_timeout(500)

    def export(self, name: str) -> None:
        """Sends the segmentation to the PACS by OHIF's own menu."""
        self.page.click("div:has(> button[role=combobox]) > button[aria-haspopup=menu]")
        self.page.get_by_text("Export & Download").hover()
        self.page.get_by_text("Export DICOM SEG").click()
        self.page.get_by_text("Enter the report name").wait_for()
        self.page.locator("input.border-primary-main").last.fill(name)
        self.page.get_by_role("button", name="Save", exact=True).click()
        self.notice("Exported")

    def mask(self) -> np.ndarray:
        """The segmentation's voxels (I, J, K), as cornerstone holds them."""
        shape, runs = self.page.evaluate(RUNS)
        flat = np.zeros(int(np.prod(shape)), np.uint8)
        for start, end, value in runs:
            flat[start:end] = value
        return flat.reshape(shape, order="F")

    def update_model(self) -> None:
        """Starts a training."""
        self.open_learning()
        with self.page.expect_response(lambda each: each.request.method == "POST") as answer:
            self.page.get_by_role("button", name="Update Model").click()
        assert answer.value.status == 200, answer.value.text()

    def open_learning(self) -> None:
        """Opens Active Learning."""
        self.page.set_checked("#tab-1", True, force=True)

    def picture(self, name: str) -> None:
        """Keeps what is seen as `ohif-NAME.png` in $SAM3D_SCREENSHOTS, when that is set."""
        folder = os.environ.get("SAM3D_SCREENSHOTS")
        if folder:
            self.page.mouse.move(800, 5)
            seen = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
            seen.quantize(COLOURS).save(f"{folder}/ohif-{name}.png", optimize=True)

    def segments(self) -> dict[str, int]:
        """Value of each segment by its name."""
        return dict(self.page.evaluate(SEGMENTS))


@contextmanager
def serve_archive(archive: Orthanc, folder: Path, **conf: str) -> Iterator[str]:
    """Starts the server on a PACS, as a user does; its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(folder / "cache"))
        patch.setenv("MONAI_LABEL_AUTO_UPDATE_SCORING", "false")
        arguments = ["--studies", archive.dicom_web]
        for key, value in {"dicomweb_refresh": "0.5", **conf}.items():
            arguments += ["--conf", key, value]
        with serve(arguments, folder, program=SCRIPT) as url:
            yield url


@contextmanager
def open_study(
    server: str, slices: Sequence[Path], on_page: Callable[[Any], object] = lambda _: None
) -> Iterator[Ohif]:
    """Opens the study of some slices in a browser, connects, and enlarges the axial view.

    Args:
        server: The server's address.
        slices: Files of the study.
        on_page: Gets the browser's page before OHIF is opened on it.
    """
    study = str(pydicom.dcmread(slices[0], stop_before_pixels=True).StudyInstanceUID)
    with browser() as chromium:
        page, _ = open_page(chromium, "about:blank", 1280, 800)
        on_page(page)
        viewer = Ohif(page, server, study)
        viewer.connect()
        viewer.enlarge()
        yield viewer
