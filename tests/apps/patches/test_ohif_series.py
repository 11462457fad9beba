"""A study of several series in OHIF: each has its own clicks, its own segmentation and its own label."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom.uid import generate_uid

from tests.helpers.dicom_files import write_series
from tests.helpers.ohif import CLICKS, Ohif, open_study, serve_archive
from tests.helpers.orthanc import orthanc

pytestmark = pytest.mark.slow

RADIUS = 8
"""Of the ball in each series, in voxels."""

GRIDS = {
    "A": ((64, 48, 20), (20, 20, 10)),
    "B": ((64, 48, 20), (40, 30, 10)),
    "C": ((80, 64, 12), (30, 30, 6)),
}
"""Size of each series, and the middle of its ball: A and B on one grid, C on another."""


@dataclass(frozen=True)
class Study:
    """A study on a PACS, and the server that works on it.

    Attributes:
        server: Its address.
        slices: Files of the series that OHIF shows first.
        series: SeriesInstanceUIDs by name.
        uid: StudyInstanceUID.
    """

    server: str
    slices: list[Path]
    series: dict[str, str]
    uid: str

    def label(self, name: str) -> Any:
        """The saved label of a series (I, J, K), or None."""
        answer = httpx.get(f"{self.server}/datastore/segmentation", params={"image": self.series[name]}, timeout=60)
        return read_nrrd(answer.raise_for_status().content) if answer.content else None


def read_nrrd(content: bytes) -> np.ndarray:
    header, _, voxels = content.partition(b"\n\n")
    shape = [int(size) for size in re.search(rb"^sizes: (.*)$", header, re.M)[1].split()]  # type: ignore[index]
    return np.frombuffer(voxels, np.uint8).reshape(shape, order="F")


def ball(shape: tuple[int, ...], middle: tuple[int, ...]) -> np.ndarray:
    """A bright ball in noise."""
    distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - middle, axis=-1)
    noise = np.random.default_rng(0).integers(-100, 0, shape)
    return np.where(distance < RADIUS, 300, noise).astype(np.int16)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder, uid, frame = tmp_path_factory.mktemp("series"), generate_uid(), generate_uid()
    series = {
        name: write_series(
            folder / name,
            ball(*grid),
            study=uid,
            SeriesNumber=number,
            SeriesDescription=name,
            FrameOfReferenceUID=frame,
        )[0]
        for number, (name, grid) in enumerate(GRIDS.items(), start=1)
    }
    with orthanc(folder / "orthanc") as archive:
        for name in series:
            archive.store(sorted((folder / name).iterdir()))
        with serve_archive(archive, folder, labels="tumor,cyst") as server:
            yield Study(server, sorted((folder / "A").iterdir()), series, uid)


def middle(name: str) -> tuple[int, int, int]:
    return GRIDS[name][1]


def sent(viewer: Ohif, study: Study) -> list[tuple[str, list[list[int]]]]:
    """Series and clicks inside of the requests to infer from now on."""
    requests: list[tuple[str, list[list[int]]]] = []
    names = {uid: name for name, uid in study.series.items()}

    def note(request: Any) -> None:
        if "/infer/" in request.url:
            params = json.loads(re.search(r"\{.*\}", request.post_data)[0])  # type: ignore[index]
            requests.append((names[re.search(r"image=([\d.]+)", request.url)[1]], params["foreground"]))  # type: ignore[index]

    viewer.page.on("request", note)
    return requests


def test_each_series_has_its_own_clicks_segmentation_and_label(study: Study) -> None:
    masks: dict[str, np.ndarray] = {}
    with open_study(study.server, study.slices) as ohif:
        requests = sent(ohif, study)
        ohif.open_points()
        for name in GRIDS:
            if name != "A":
                ohif.show_series(study.series[name])
            assert not ohif.mask().any(), f"{name} begins with what was painted on another series"
            assert ohif.page.evaluate(CLICKS) == 0
            ohif.segment(middle(name))
            assert ohif.notices() == []
            masks[name] = ohif.mask()
            assert masks[name].shape == GRIDS[name][0]
            assert masks[name][middle(name)] == 1
        assert [(name, len(clicks)) for name, clicks in requests] == [("A", 1), ("B", 1), ("C", 1)]

        ohif.show_series(study.series["B"])
        np.testing.assert_array_equal(ohif.mask(), masks["B"])
        ohif.save_label()
        assert study.label("A") is None
        np.testing.assert_array_equal(study.label("B"), masks["B"])
        ohif.show_series(study.series["C"])
        ohif.save_label()
        np.testing.assert_array_equal(study.label("C"), masks["C"])
        ohif.picture("series")

        ohif.show_series(study.series["A"])
        np.testing.assert_array_equal(ohif.mask(), masks["A"])
        assert ohif.page.evaluate(CLICKS) == 1
        i, j, k = middle("A")
        ohif.segment((i + 4, j, k))
        assert (requests[-1][0], len(requests[-1][1])) == ("A", 2)

    with open_study(study.server, study.slices) as ohif:
        assert not ohif.mask().any()
        for name in ("B", "C"):
            ohif.show_series(study.series[name])
            ohif.wait_for_saved_label()
            np.testing.assert_array_equal(ohif.mask(), masks[name])


def test_a_mask_that_arrives_when_another_series_is_shown_is_not_painted(study: Study) -> None:
    held: list[Any] = []
    with open_study(study.server, study.slices) as ohif:
        ohif.page.route("**/infer/**", lambda route: held.append(route))
        ohif.open_points()
        ohif.click(middle("A"))
        ohif.show_series(study.series["B"])
        before = ohif.mask()
        with ohif.page.expect_response("**/infer/**", timeout=120_000) as answer:
            held[0].continue_()
        assert answer.value.status == 200
        ohif.notice("Another series is shown by now")
        np.testing.assert_array_equal(ohif.mask(), before)
        ohif.show_series(study.series["A"])
        ohif.wait_without_notices()
        assert not ohif.mask().any()


def test_next_sample_opens_the_series_that_was_chosen(study: Study) -> None:
    with open_study(study.server, study.slices) as ohif:
        ohif.open_points()
        ohif.segment(middle("A"))
        ohif.page.on("dialog", lambda dialog: dialog.accept())
        sample: dict[str, str] = {}
        ohif.page.route("**/activelearning/**", lambda route: route.fulfill(json=sample))
        for name in ("C", "B"):
            sample |= {"StudyInstanceUID": study.uid, "SeriesInstanceUID": study.series[name]}
            ohif.next_sample()
            assert ohif.shown_series() == study.series[name]
            assert ohif.mask().shape == GRIDS[name][0]
