"""`GET /datastore/segmentation`: what OHIF paints when a series with a saved label is opened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from lib.errors import install_error_handlers
from lib.patches.monai_label import install
from lib.server.routes.segmentation import nrrd
from sam3d_label.image.volume import Volume
from tests.helpers.app_helpers import SHAPE, make_app, orthogonal, write_nifti

URL = "/datastore/segmentation"


@pytest.fixture
def client(tmp_path: Path, weights_path: Path) -> Iterator[TestClient]:
    (tmp_path / "studies").mkdir()
    write_nifti(tmp_path / "studies" / "ct.nii.gz")
    api = FastAPI()
    install_error_handlers(api)
    install(make_app(tmp_path / "studies", {"weights": str(weights_path), "labels": "tumor,cyst"}), api)
    with TestClient(api, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def save(client: TestClient, tmp_path: Path) -> Callable[..., None]:
    """Saves a label of the image, with the names of its values."""

    def save(label: np.ndarray, **names: int) -> None:
        file = write_nifti(tmp_path / "label.nii.gz", label, orthogonal()).read_bytes()
        info = {"label_info": [{"name": name, "idx": value} for name, value in names.items()]}
        client.put(
            "/datastore/label",
            params={"image": "ct"},
            data={"params": json.dumps(info)},
            files={"label": ("label.nii.gz", file)},
        ).raise_for_status()

    return save


def two_boxes(dtype: Any = np.int16, values: tuple[int, int] = (1, 3)) -> np.ndarray:
    label = np.zeros(SHAPE, dtype)
    label[2:9, 3:7, 1:5], label[12:20, 9:21, 4:11] = values
    return label


def test_a_label_comes_with_its_voxels_names_and_place(client: TestClient, save: Any, tmp_path: Path) -> None:
    label = two_boxes()
    save(label, tumor=1, **{'Zyste "groß"': 3})
    answer = client.get(URL, params={"image": "ct"})
    header, _, voxels = answer.content.partition(b"\n\n")
    lines = header.decode().split("\n")
    assert "encoding: raw" in lines
    np.testing.assert_array_equal(np.frombuffer(voxels, np.uint8).reshape(SHAPE, order="F"), label)
    names = {line.partition(":=")[0]: line.partition(":=")[2] for line in lines if ":=" in line}
    assert json.loads(f'"{names["Segment1_Name"]}"') == 'Zyste "groß"'
    assert (names["Segment0_Name"], names["Segment0_LabelValue"], names["Segment1_LabelValue"]) == ("tumor", "1", "3")
    (tmp_path / "back.nrrd").write_bytes(answer.content)
    back = Volume.open(tmp_path / "back.nrrd")
    np.testing.assert_array_equal(back.array, label)
    np.testing.assert_allclose(back.affine, orthogonal(), atol=1e-5)


def test_a_cropped_label_comes_as_a_form_with_its_names_and_box(client: TestClient, save: Any, tmp_path: Path) -> None:
    label = two_boxes()
    save(label, tumor=1, cyst=3)
    answer = client.get(URL, params={"image": "ct", "result_crop": True})
    boundary = answer.headers["content-type"].partition("boundary=")[2]
    params, image = answer.content.split(f"--{boundary}".encode())[1:3]
    described = json.loads(params.partition(b"\r\n\r\n")[2])
    np.testing.assert_allclose(described.pop("affine"), orthogonal(), atol=1e-4)
    assert described == {
        "label_names": {"tumor": 1, "cyst": 3},
        "crop_box": [2, 20, 3, 21, 1, 11],
        "shape": list(SHAPE),
    }
    (tmp_path / "crop.nii.gz").write_bytes(image.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
    crop = Volume.open(tmp_path / "crop.nii.gz")
    np.testing.assert_array_equal(crop.array, label[2:20, 3:21, 1:11])
    np.testing.assert_allclose(crop.affine @ [0, 0, 0, 1], orthogonal() @ [2, 3, 1, 1], atol=1e-4)


def test_what_is_ignored_is_not_painted() -> None:
    label = Volume(two_boxes(values=(1, -1)).astype(np.float32), np.eye(4))
    _, _, voxels = nrrd(label, {1: "tumor"}).partition(b"\n\n")
    assert set(voxels) == {0, 1}


def test_an_image_without_a_label_has_no_segmentation(client: TestClient) -> None:
    answer = client.get(URL, params={"image": "ct"})
    assert (answer.status_code, answer.content) == (204, b"")


def test_an_unknown_image_is_404(client: TestClient) -> None:
    answer = client.get(URL, params={"image": "mr"})
    assert (answer.status_code, "no image 'mr'" in answer.json()["detail"]) == (404, True)


def test_values_that_ohif_cannot_show_are_rejected(client: TestClient, save: Any) -> None:
    save(two_boxes(values=(1, 300)), tumor=1, cyst=300)
    answer = client.get(URL, params={"image": "ct"})
    assert (answer.status_code, "values up to 300" in answer.json()["detail"]) == (400, True)


def test_files_of_a_folder_have_no_dicom_segs(client: TestClient) -> None:
    answer = client.get(URL, params={"image": "ct", "series": "1.2.3"})
    assert (answer.status_code, "DICOM server" in answer.json()["detail"]) == (400, True)
