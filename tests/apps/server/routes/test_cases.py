"""`/sam3d/cases`: what the page lists and opens."""

from __future__ import annotations

import gzip
import importlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from fastapi import FastAPI
from starlette.testclient import TestClient

from lib.errors import install_error_handlers
from lib.patches.monai_label import install
from lib.server.routes import cases
from sam3d_label.image.volume import Volume, to_itk
from tests.helpers.app_helpers import SHAPE, ball, make_app, orthogonal, write_nifti

URL = "/sam3d/cases"


@pytest.fixture
def client(tmp_path: Path, weights_path: Path) -> Iterator[TestClient]:
    folder = tmp_path / "studies"
    folder.mkdir()
    write_nifti(folder / "ct.nii.gz")
    sitk.WriteImage(to_itk(np.rint(ball()).astype(np.int16), orthogonal()), str(folder / "mr.nrrd"))
    sitk.WriteImage(to_itk(ball(), orthogonal()), str(folder / "real.nrrd"))
    (folder / "broken.nii.gz").write_bytes(b"no volume" * 100)
    app = make_app(folder, {"weights": str(weights_path)})
    api = FastAPI()
    install_error_handlers(api)
    install(app, api)
    api.include_router(cases.router(app))
    with TestClient(api, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def test_images_are_listed_with_their_state(client: TestClient, tmp_path: Path) -> None:
    label = write_nifti(tmp_path / "label.nii.gz", (ball() > 150).astype(np.uint8), orthogonal())
    saved = client.put(
        "/datastore/label", params={"image": "mr"}, files={"label": ("label.nii.gz", label.read_bytes())}
    )
    assert saved.status_code == 200, saved.text
    listed = client.get(URL).json()
    assert [(each["image"], each["labelled"], each["doubt"]) for each in listed] == [
        ("ct", False, None),
        ("mr", True, None),
        ("real", False, None),
    ]


def test_a_case_can_be_opened_before_the_weights_have_learned_clicks(tmp_path: Path, untrained_path: Path) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    write_nifti(folder / "ct.nii.gz")
    app = make_app(folder, {"weights": str(untrained_path)})
    api = FastAPI()
    api.include_router(importlib.import_module(cases.__name__).router(app))  # make_app has loaded it anew
    with TestClient(api, base_url="http://127.0.0.1") as client:
        view = client.get(f"{URL}/view", params={"image": "ct"})
    assert view.status_code == 200, view.text
    assert view.json()["shape"] == list(SHAPE)


def test_the_view_describes_grid_and_intensities(client: TestClient) -> None:
    view = client.get(f"{URL}/view", params={"image": "ct"}).json()
    assert (view["image"], view["shape"], view["study"]) == ("ct", list(SHAPE), None)
    np.testing.assert_allclose(view["affine"], orthogonal(), atol=1e-5)
    low, high = view["window"]
    assert view["range"][0] <= low < high <= view["range"][1]
    assert {"modality", "modality_from", "spacing"} <= view.keys()


def test_a_constant_image_has_a_window() -> None:
    view = cases.describe(Volume(np.full((4, 4, 4), 7.0), np.eye(4)))
    assert view["window"] == [7.0, pytest.approx(7.0, abs=1e-5)]
    assert view["window"][0] < view["window"][1]


def test_a_volume_is_sent_while_it_is_compressed() -> None:
    array = np.arange(4 * 3 * 5, dtype=np.float32).reshape(4, 3, 5) / 7
    parts = list(cases.nifti(Volume(array, orthogonal())))
    assert len(parts) == 1 + 5 + 1
    image = nib.Nifti1Image.from_bytes(gzip.decompress(b"".join(parts)))
    assert np.array_equal(np.asarray(image.dataobj), array)
    np.testing.assert_allclose(image.affine, orthogonal(), atol=1e-5)


def test_an_image_is_viewed_while_a_click_on_it_is_computed(tmp_path: Path, weights_path: Path) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    path = str(write_nifti(folder / "ct.nii.gz"))
    app = make_app(folder, {"weights": str(weights_path)})
    with app.segmenters.borrow(path, "cpu"), ThreadPoolExecutor(1) as pool:
        volume, _ = pool.submit(cases.open_for_view, app, path).result(timeout=30)
    assert volume.shape == SHAPE


@pytest.mark.parametrize(("image", "kind"), [("ct", np.float32), ("mr", np.int16), ("real", np.float32)])
def test_every_image_comes_as_nifti_with_its_voxels_and_place(
    client: TestClient, tmp_path: Path, image: str, kind: type
) -> None:
    answer = client.get(f"{URL}/volume", params={"image": image})
    (tmp_path / "x.nii.gz").write_bytes(answer.content)
    file = nib.Nifti1Image.from_filename(tmp_path / "x.nii.gz")
    assert file.get_data_dtype() == kind
    expected = np.rint(ball()) if image == "mr" else ball()
    np.testing.assert_array_equal(np.asarray(file.dataobj), expected)
    np.testing.assert_allclose(file.affine, orthogonal(), atol=1e-4)


@pytest.mark.parametrize("route", ["view", "volume"])
@pytest.mark.parametrize("image", ["other", "broken", "../ct"])
def test_an_unknown_or_broken_image_is_404(client: TestClient, route: str, image: str) -> None:
    answer = client.get(f"{URL}/{route}", params={"image": image})
    assert answer.status_code == 404
    assert "There is no image" in answer.json()["detail"]
