"""The server as a user starts it on a DICOMweb address, and what OHIF, Slicer and the REST API ask of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from lib.datastores.dicom_seg_read import read_seg, segment_names
from lib.datastores.dicom_series import open_series
from tests.helpers.app_helpers import CENTRE, post, serve, write_nifti
from tests.helpers.dicom_files import OBLIQUE, series_array, write_series
from tests.helpers.orthanc import Orthanc, orthanc

pytestmark = pytest.mark.slow
USER, SECRET = "reader", "se-cr-et"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dicomweb")


@pytest.fixture(scope="module")
def archive(folder: Path) -> Iterator[Orthanc]:
    with orthanc(folder / "orthanc", (USER, SECRET)) as server:
        yield server


@pytest.fixture(scope="module")
def series(archive: Orthanc, folder: Path) -> str:
    uid, _ = write_series(folder / "slices", modality="MR", orientation=OBLIQUE, reverse=True)
    archive.store((folder / "slices").iterdir())
    return uid


@pytest.fixture(scope="module")
def server(archive: Orthanc, series: str, weights_path: Path, folder: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        (folder / "tmp").mkdir()
        for name, value in {
            "MONAI_LABEL_DICOMWEB_USERNAME": USER,
            "MONAI_LABEL_DICOMWEB_PASSWORD": SECRET,
            "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache"),
            "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
            "TMPDIR": str(folder / "tmp"),
            **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),  # nothing beyond this machine
            "no_proxy": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        arguments = ["--studies", archive.dicom_web]
        for key, value in {"weights": str(weights_path), "labels": "tumor,cyst", "dicomweb_refresh": "0.1"}.items():
            arguments += ["--conf", key, value]
        with serve(arguments, folder) as url:
            yield url


@pytest.fixture
def http(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client


def dicom(content: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))


def test_ohif_clicks_on_a_series(http: httpx.Client, series: str) -> None:
    tail: dict[str, Any] = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
    answer = post(http, series, query={"output": "image"}, foreground=[CENTRE], background=[], **tail)
    header, _, body = answer.content.partition(b"\n\n")
    assert b"type: unsigned char" in header
    assert len(body) == series_array().size


def test_the_next_sample_is_a_series(http: httpx.Client, series: str) -> None:
    answer = http.post("/activelearning/random", json={}).json()
    assert answer["id"] == answer["SeriesInstanceUID"] == series
    assert answer["StudyInstanceUID"]
    assert answer["Modality"] == "MR"


@pytest.mark.parametrize("info", [None, [{"name": "cyst", "idx": 1}]])
def test_a_mask_comes_as_a_dicom_seg(http: httpx.Client, series: str, folder: Path, info: Any) -> None:
    params: dict[str, Any] = {"foreground": [CENTRE], "label": "tumor"} | ({"label_info": info} if info else {})
    answer = post(http, series, query={"output": "dicom_seg"}, **params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom"
    seg = dicom(answer.content)
    assert segment_names(seg) == {1: info[0]["name"] if info else "tumor"}
    volume, _ = open_series(folder / "slices")
    mask = folder / "mask.nii.gz"
    mask.write_bytes(post(http, series, query={"output": "image"}, **params).content)
    np.testing.assert_array_equal(read_seg(seg, volume).T, sitk.GetArrayFromImage(sitk.ReadImage(str(mask))))
    assert not list((folder / "tmp").glob("*.dcm"))


def test_a_dicom_seg_of_no_series_is_refused(http: httpx.Client, series: str) -> None:
    answer = post(http, None, query={"output": "dicom_seg", "session_id": "x"}, foreground=[CENTRE])
    assert (answer.status_code, "refers to a series" in answer.json()["detail"]) == (400, True)
    assert post(http, "1.2.3", query={"output": "dicom_seg"}, foreground=[CENTRE]).status_code == 404
    unsure = post(http, series, query={"output": "dicom_seg"}, foreground=[CENTRE], result="uncertainty")
    assert unsure.status_code == 400
    assert "A DICOM SEG holds a mask" in unsure.text


def test_slicer_saves_a_label_and_gets_it_back(http: httpx.Client, series: str, archive: Orthanc, folder: Path) -> None:
    volume, _ = open_series(folder / "slices")
    label = np.zeros(volume.shape, np.uint8)
    label[3:9, 4:12, 2:6], label[15:20, 4:9, 3:8] = 1, 2
    info = {"label_info": [{"name": "cyst", "idx": 2}, {"name": "tumor", "idx": 3}], "client_id": "user-xyz"}
    file = write_nifti(folder / "label.nii.gz", label, volume.affine).read_bytes()
    saved = http.put(
        "/datastore/label",
        params={"image": series},
        data={"params": json.dumps(info)},
        files={"label": ("label.nii.gz", file)},
    )
    assert saved.status_code == 200, saved.text
    (listed,) = archive.search(Modality="SEG")
    seg = dicom(archive.instance(listed["0020000E"]["Value"][0]))
    assert segment_names(seg) == {1: "cyst", 2: "tumor"}
    np.testing.assert_array_equal(read_seg(seg, volume), label)
    assert http.get("/info/").json()["datastore"]["completed"] == 1
    assert http.get("/datastore/label", params={"label": series, "tag": "final"}).content == file
    assert len(http.get("/datastore/", params={"output": "train"}).json()) == 1
    assert http.get("/datastore/label/info", params={"label": series, "tag": "final"}).json()["SOPInstanceUID"]


def test_what_was_done_wrong_is_reported(http: httpx.Client, series: str, folder: Path) -> None:
    file = write_nifti(folder / "x.nii.gz").read_bytes()
    upload = http.put("/datastore/image", params={"image": "x"}, files={"file": ("x.nii.gz", file)})
    assert (upload.status_code, "send the series there" in upload.json()["detail"]) == (400, True)
    assert http.get("/datastore/image", params={"image": "1.2.3"}).status_code == 404
    label = http.put("/datastore/label", params={"image": series}, files={"label": ("x.nii.gz", file)})
    assert (label.status_code, "its image" in label.json()["detail"]) == (400, True)
    assert post(http, "1.2.3", foreground=[CENTRE]).status_code == 404


def test_no_secret_no_name_and_no_file_is_left(http: httpx.Client, series: str, folder: Path) -> None:
    log = (folder / "log").read_text()
    assert SECRET not in log
    assert "P-17" not in log
    assert "Käthe" not in log
    assert [path.name for path in (folder / "tmp").glob("*.dcm")] == []
    assert list((folder / "cache").rglob("download-*")) == []


def test_a_server_that_went_away_is_reported(
    http: httpx.Client, weights_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(folder / "no cache"))
    arguments = ["--studies", "http://127.0.0.1:9/dicom-web", "--conf", "weights", str(weights_path)]
    with serve(arguments, folder, log=folder / "log of nobody") as url:
        assert "does not answer" in httpx.get(f"{url}/info/").json()["datastore"]["error"]
        for answer in (
            httpx.post(f"{url}/activelearning/random", json={}),
            httpx.get(f"{url}/datastore/", params={"output": "train"}),
        ):
            assert (answer.status_code, "--studies" in answer.json()["detail"]) == (503, True)
