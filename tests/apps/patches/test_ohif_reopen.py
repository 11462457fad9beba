"""A saved label in OHIF: it is there when the series is opened again, and can be corrected. A case of one click."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest

from lib.datastores.dicom_series import open_series
from sam3d_label.image.volume import Volume
from sam3d_label.masks import dice
from tests.helpers.app_helpers import write_nifti
from tests.helpers.dicom_files import write_series
from tests.helpers.ohif import AUTO, Ohif, open_study
from tests.helpers.orthanc import Orthanc

pytestmark = pytest.mark.slow
MIDDLE_OF_SARCOMA = (74, 97, 28)
HALFWAY = {"running": True, "done": 4, "total": 8}


@pytest.fixture(scope="module")
def slices(folder: Path) -> list[Path]:
    write_series(folder / "slices", np.random.default_rng(0).integers(-100, 200, (64, 48, 20), np.int16))
    return sorted((folder / "slices").iterdir())


@pytest.fixture
def save(server: str, slices: list[Path], folder: Path) -> Callable[..., np.ndarray]:
    """Saves a label with a box for each name; its voxels, numbered in this order."""
    volume, _ = open_series(slices[0].parent)
    image = str(pydicom.dcmread(slices[0], stop_before_pixels=True).SeriesInstanceUID)

    def save(**boxes: tuple[slice, slice, slice]) -> np.ndarray:
        label = np.zeros(volume.shape, np.uint8)
        for value, box in enumerate(boxes.values(), start=1):
            label[box] = value
        info = [{"name": name, "idx": value} for value, name in enumerate(boxes, start=1)]
        httpx.put(
            f"{server}/datastore/label",
            params={"image": image},
            data={"params": json.dumps({"label_info": info})},
            files={"label": ("label.nii.gz", write_nifti(folder / "label.nii.gz", label, volume.affine).read_bytes())},
            timeout=60,
        ).raise_for_status()
        return label

    return save


def by_name(ohif: Ohif, mask: np.ndarray) -> dict[str, np.ndarray]:
    """What is painted, by the name of its segment."""
    found = {name: mask == value for name, value in ohif.segments().items()}
    return {name: voxels for name, voxels in found.items() if voxels.any()}


def test_a_saved_label_is_there_again(
    server: str, slices: list[Path], archive: Orthanc, save: Callable[..., np.ndarray]
) -> None:
    first = save(cyst=np.s_[5:20, 6:12, 3:9], edema=np.s_[30:40, 20:40, 10:12])
    (seg,) = [one["0020000E"]["Value"][0] for one in archive.search(Modality="SEG")]
    newest = save(tumor=np.s_[40:50, 10:30, 8:15])
    with open_study(server, slices) as ohif:
        ohif.wait_for_saved_label()
        shown = by_name(ohif, ohif.mask())
        assert list(shown) == ["tumor"]
        np.testing.assert_array_equal(shown["tumor"], newest == 1)

        ohif.page.on("dialog", lambda dialog: dialog.accept())
        ohif.open_series(seg)
        ohif.notice("The saved label is open: cyst, edema")
        shown = by_name(ohif, ohif.mask())
        assert list(shown) == ["cyst", "edema"], "a name that the server does not segment is a segment all the same"
        np.testing.assert_array_equal(shown["cyst"], first == 1)
        np.testing.assert_array_equal(shown["edema"], first == 2)

        ohif.take("Eraser", "edema", 3)
        ohif.stroke((35, 30, 10), (36, 30, 10))
        corrected = ohif.mask()
        assert 0 < np.count_nonzero(by_name(ohif, corrected)["edema"]) < np.count_nonzero(first == 2)
        ohif.save_label()
    with open_study(server, slices) as ohif:
        ohif.wait_for_saved_label()
        np.testing.assert_array_equal(ohif.mask(), corrected)


@pytest.fixture
def sarcoma(real_data: Path, archive: Orthanc, folder: Path) -> tuple[list[Path], np.ndarray]:
    """The T1 MR of a patient who never trained the shipped weights, on the PACS, and where the sarcoma is."""
    image, label = (Volume.open(real_data / "sts" / kind / "sts_031_mr.nii.gz") for kind in ("images", "labels"))
    columns, rows, slices = (round(float(spacing), 4) for spacing in image.spacing)
    write_series(
        folder / "sarcoma",
        np.rint(image.array).astype(np.int16),
        modality="MR",
        step=(0, 0, slices),
        patient="P-18",
        PixelSpacing=[rows, columns],
        SliceThickness=slices,
    )
    files = sorted((folder / "sarcoma").iterdir())
    archive.store(files)
    return files, label.array > 0


def test_one_click_marks_a_sarcoma_and_a_search_without_a_click_shows_its_progress(
    server: str, sarcoma: tuple[list[Path], np.ndarray]
) -> None:
    slices, target = sarcoma
    with open_study(server, slices) as ohif:
        ohif.open_points()
        ohif.segment(MIDDLE_OF_SARCOMA)
        ohif.picture("sarcoma")
        reached = dice(ohif.mask() > 0, target)
        held: list[Any] = []
        ohif.page.route("**/infer/**", lambda route: held.append(route))
        ohif.page.route("**/sam3d/progress*", lambda route: route.fulfill(json=HALFWAY))
        ohif.page.click("label[for=tab-2]")
        ohif.page.click(f"{AUTO} button.actionButton")
        ohif.notice("4 of 8 parts of the series")
        with ohif.page.expect_response("**/infer/**", timeout=120_000) as answer:
            held[0].continue_()
        assert answer.value.status == 200
    assert reached > 0.8
