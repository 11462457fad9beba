"""The server as the shell script of MONAI Label starts it, and MONAI Label's own client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monailabel.client.client import MONAILabelClient, MONAILabelClientException

from tests.helpers.app_helpers import CENTRE, SCRIPT, SHAPE, post, serve, write_nifti

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(studies: Path, weights_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    arguments = [
        "--studies",
        str(studies),
        "--conf",
        "weights",
        str(weights_path),
        "--conf",
        "cache_mb",
        "64",
    ]
    with serve(arguments, folder, program=SCRIPT) as url:
        yield url


@pytest.fixture
def client(server: str, tmp_path: Path) -> MONAILabelClient:
    return MONAILabelClient(server, tmpdir=str(tmp_path), client_id="tests")


def test_the_client_of_monai_label_gets_a_mask_on_the_stored_grid(client: MONAILabelClient, studies: Path) -> None:
    info = client.info()
    assert info["models"]["sam3d"]["type"] == "deepgrow"
    assert info["labels"] == ["tumor"]
    for extension in (".nrrd", ".nii.gz"):
        file, answer = client.infer(
            "sam3d", "mr", {"foreground": [CENTRE], "background": [[1, 1, 1]], "result_extension": extension}
        )
        mask, source = sitk.ReadImage(file), sitk.ReadImage(str(studies / "mr.nii.gz"))
        assert file.endswith(extension)
        assert mask.GetSize() == SHAPE
        assert mask.GetPixelIDTypeAsString() == "8-bit unsigned integer"
        np.testing.assert_allclose(mask.GetOrigin(), source.GetOrigin(), atol=1e-5)
        np.testing.assert_allclose(mask.GetSpacing(), source.GetSpacing(), atol=1e-5)
        np.testing.assert_allclose(mask.GetDirection(), source.GetDirection(), atol=1e-5)
        assert set(np.unique(sitk.GetArrayFromImage(mask))) <= {0, 1}
        assert answer["label_names"] == {"tumor": 1}
        assert {"latencies", "model_version", "changed_box"} <= answer.keys()


def test_an_answer_outlives_the_server_s_own_copy_in_the_same_folder_for_temporary_files(server: str) -> None:
    file, _ = MONAILabelClient(server).infer("sam3d", "mr", {"foreground": [CENTRE], "background": []})
    time.sleep(0.5)  # the server deletes its copy once the answer is sent
    sitk.ReadImage(file)
    Path(file).unlink()


def test_the_client_of_monai_label_asks_without_clicks_and_for_uncertainty(client: MONAILabelClient) -> None:
    assert client.info()["models"]["sam3d_auto"]["type"] == "segmentation"
    file, answer = client.infer("sam3d_auto", "mr", {})
    assert nib.Nifti1Image.from_filename(file).get_data_dtype() == np.uint8
    assert answer["label_names"] == {"tumor": 1}
    file, answer = client.infer("sam3d", "mr", {"foreground": [CENTRE], "result": "uncertainty"})
    assert nib.Nifti1Image.from_filename(file).get_data_dtype() == np.float32
    assert nib.Nifti1Image.from_filename(file).shape == SHAPE
    assert "next_click" in answer


def test_the_client_of_monai_label_works_on_a_session(client: MONAILabelClient, tmp_path: Path) -> None:
    session = client.create_session(str(write_nifti(tmp_path / "local.nii.gz")))["session_id"]
    assert client.get_session(session)["name"] == session
    file, _ = client.infer("sam3d", "local", {"foreground": [CENTRE]}, session_id=session)
    assert nib.Nifti1Image.from_filename(file).shape == SHAPE
    client.remove_session(session)
    with pytest.raises(MONAILabelClientException, match="does not exist or has expired"):
        client.infer("sam3d", "local", {"foreground": [CENTRE]}, session_id=session)


def test_the_client_of_monai_label_uploads_and_saves(client: MONAILabelClient, tmp_path: Path) -> None:
    client.upload_image(str(write_nifti(tmp_path / "a.nii.gz")), "uploaded")
    file, _ = client.infer("sam3d", "uploaded", {"foreground": [CENTRE]})
    assert client.save_label("uploaded", file, params={"label_info": [{"name": "tumor", "idx": 1}]})
    stored = client.download_label("uploaded", "final")
    np.testing.assert_array_equal(
        nib.Nifti1Image.from_filename(stored).get_fdata(), nib.Nifti1Image.from_filename(file).get_fdata()
    )
    assert client.info()["datastore"]["completed"] == 1
    assert client.next_sample("first", {})["id"] != "uploaded"


def test_a_batch_in_the_background_is_followed_and_its_labels_are_seen(server: str) -> None:
    def is_over(task: dict[str, Any]) -> bool:
        return task["status"] not in ("SUBMITTED", "RUNNING")

    def wait(until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + 240
        while not until(task := http.get("/batch/infer").json()):
            assert time.monotonic() < deadline, task
            time.sleep(0.2)
        return dict(task)

    with httpx.Client(base_url=server, timeout=60) as http:
        assert http.get("/batch/infer").status_code == 404
        body = {"label_tag": "auto", "images": ["mr", "odd", "text"], "max_workers": 1}
        assert http.post("/batch/infer/sam3d_auto", json=body).json()["status"] in ("SUBMITTED", "RUNNING")
        task = wait(is_over)
        log = "\n".join(task["details"])
        assert task["status"] == "DONE", log
        assert "1 of 3: mr: saved as auto" in log
        assert "3 of 3: text: failed: Image text.nii.gz" in log
        assert http.get("/info/").json()["datastore"]["label_tags"]["auto"] == 2
        assert http.get("/datastore/label", params={"label": "mr", "tag": "auto"}).status_code == 200

        http.post("/batch/infer/sam3d_auto", params={"images": "unlabeled"})
        wait(lambda task: task["status"] == "RUNNING")
        assert http.delete("/batch/infer").json()["status"] == "STOPPED"
        assert wait(is_over)["status"] == "STOPPED"


@pytest.mark.parametrize(("compress", "encoding"), [(False, b"encoding: raw"), (True, b"encoding: gzip")])
def test_a_bare_nrrd_raw_or_gzip(server: str, compress: bool, encoding: bytes) -> None:
    with httpx.Client(base_url=server, timeout=60) as http:
        answer = post(
            http,
            query={"output": "image"},
            foreground=[CENTRE],
            result_extension=".nrrd",
            result_compress=compress,
        )
    assert encoding in answer.content[:1000]


@pytest.mark.parametrize(
    ("image", "model", "params", "status"),
    [
        ("nobody", "sam3d", {"foreground": [CENTRE]}, 404),
        ("mr", "nobody", {"foreground": [CENTRE]}, 404),
        ("mr", "sam3d", {"foreground": [[30, 1, 1]]}, 400),
        ("mr", "sam3d", {}, 400),
        ("mr", "sam3d", {"foreground": [CENTRE, [1, 1, 1]], "background": [CENTRE]}, 400),
        *[(image, "sam3d", {"foreground": [[1, 1, 1]]}, 400) for image in ("nan", "empty", "flat", "series")],
        ("truncated", "sam3d", {"foreground": [[1, 1, 1]]}, 400),
        ("/etc/hostname", "sam3d", {"foreground": [[1, 1, 1]]}, 400),
    ],
)
def test_what_the_caller_did_wrong(server: str, image: str, model: str, params: dict, status: int) -> None:
    with httpx.Client(base_url=server, timeout=60) as http:
        answer = post(http, image, model=model, **params)
    assert answer.status_code == status
    assert len(answer.json()["detail"]) > 20
