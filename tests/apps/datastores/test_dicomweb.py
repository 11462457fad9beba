"""The datastore on a real DICOMweb server: what it shows, downloads, sends, refuses, and what it does without one."""

from __future__ import annotations

import logging
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from fastapi import HTTPException
from monailabel.config import settings

from lib.datastores import dicom_client, dicomweb
from lib.datastores.dicom_client import DicomWeb, patient_hash
from lib.datastores.dicom_seg_read import segment_names
from lib.datastores.dicom_seg_write import make_seg
from lib.datastores.dicom_series import open_series
from lib.datastores.dicomweb import DicomWebDatastore
from lib.errors import RemoteError
from lib.trainers.cases import labelled_cases
from sam3d_label.errors import Sam3dError, VolumeError
from sam3d_label.image.volume import Volume
from sam3d_label.serving import free_port
from tests.helpers.app_helpers import make_app, write_nifti
from tests.helpers.dicom_files import OBLIQUE, series_array, write_series
from tests.helpers.orthanc import Orthanc, orthanc

FINAL = "final"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def server(running: Orthanc) -> Orthanc:
    """The server without any series."""
    for series in running.search():
        running.remove(series["0020000E"]["Value"][0])
    return running


@pytest.fixture(autouse=True)
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def open_store(server: Orthanc, tmp_path: Path) -> Callable[..., DicomWebDatastore]:
    def open_store(folder: str = "cache", **options: Any) -> DicomWebDatastore:
        options = {"labels": ["tumor"], "refresh": 0.001, **options}
        return DicomWebDatastore(DicomWeb(server.dicom_web), tmp_path / folder, **options)

    return open_store


@pytest.fixture
def send(server: Orthanc, tmp_path: Path) -> Callable[..., tuple[str, np.ndarray]]:
    """Writes a series and stores it on the server."""

    def send(**options: Any) -> tuple[str, np.ndarray]:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        series, affine = write_series(folder, **options)
        server.store(folder.iterdir())
        return series, affine

    return send


def blob(shape: tuple[int, ...] = series_array().shape) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    label[10:20, 8:15, 3:8] = 1
    return label


def upload(uploads: Path, store: DicomWebDatastore, series: str, label: np.ndarray | None = None) -> str:
    affine = Volume.open(store.get_image_uri(series)).affine
    return str(write_nifti(uploads / "upload.nii.gz", blob() if label is None else label, affine))


def leftovers(store: DicomWebDatastore, uploads: Path) -> list[str]:
    """Files that nobody will ever use again."""
    cache = Path(store._datastore_path)
    return [str(path) for path in (*cache.rglob(".sam3d/download-*"), *cache.rglob(".*.nii.gz"), *uploads.iterdir())]


class TestImages:
    @pytest.mark.parametrize(
        "pose",
        [
            {"reverse": True},
            {"orientation": OBLIQUE, "modality": "MR"},
            {"step": [0.0, 0.5, 2.0]},
        ],
    )
    def test_a_series_becomes_a_volume_that_keeps_its_position(
        self, open_store: Any, send: Any, pose: dict[str, Any], uploads: Path
    ) -> None:
        series, affine = send(**pose)
        store = open_store()
        assert store.list_images() == store.get_unlabeled_images() == [series]
        volume = Volume.open(store.get_image_uri(series))
        np.testing.assert_array_equal(volume.array, series_array())
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
        assert store.get_image_info(series)["Modality"] == pose.get("modality", "CT")
        assert not leftovers(store, uploads)

    def test_it_is_downloaded_once(self, open_store: Any, send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        series, _ = send()
        first = open_store().get_image_uri(series)
        monkeypatch.setattr(DicomWeb, "download", None)
        assert open_store().get_image_uri(series) == first

    def test_new_series_come_and_removed_ones_go(self, open_store: Any, send: Any, server: Orthanc) -> None:
        store = open_store()
        assert store.status() == {"total": 0, "completed": 0, "label_tags": {}}
        ct, _ = send()
        mr, _ = send(modality="MR")
        assert set(store.list_images()) == {ct, mr}
        path = store.get_image_uri(ct)
        server.remove(ct)
        assert store.list_images() == [mr]
        assert store.get_image_uri(ct) == ""
        assert not Path(path).exists()

    def test_a_series_that_came_after_the_last_look_is_found(self, open_store: Any, send: Any) -> None:
        store = open_store(refresh=3600)
        assert store.list_images() == []
        store._asked_at -= 2
        series, _ = send()
        assert store.get_image_uri(series)
        assert store.get_image_uri("../etc") == ""

    def test_modalities_and_filters_choose(self, open_store: Any, send: Any) -> None:
        ct, _ = send()
        mr, _ = send(modality="MR", patient="P-18")
        assert open_store("a", modalities=["MR"]).list_images() == [mr]
        assert open_store("b", filters={"PatientID": "P-17"}).list_images() == [ct]

    def test_a_missing_slice_is_refused_until_it_arrives(
        self, open_store: Any, server: Orthanc, tmp_path: Path, uploads: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        series, _ = write_series(tmp_path / "slices")
        files = sorted((tmp_path / "slices").iterdir())
        server.store(file for file in files if not file.name.endswith("-6.dcm"))
        store = open_store()
        message = f"Series {series} cannot be used.*instance 5.dcm and instance 7.dcm.*some are missing"
        for _ in range(2):
            with pytest.raises(VolumeError, match=message):
                store.get_image_uri(series)
        with monkeypatch.context() as patch:
            patch.setattr(DicomWeb, "download", None)  # it is not downloaded to be refused again
            with pytest.raises(VolumeError, match=message):
                store.get_image_uri(series)
        assert store.list_images() == [series]
        assert store.get_unlabeled_images() == []
        assert not leftovers(store, uploads)
        server.store(file for file in files if file.name.endswith("-6.dcm"))
        assert Volume.open(store.get_image_uri(series)).shape == series_array().shape

    def test_a_series_that_grew_is_downloaded_again(self, open_store: Any, server: Orthanc, tmp_path: Path) -> None:
        series, _ = write_series(tmp_path / "slices")
        files = sorted((tmp_path / "slices").iterdir(), key=lambda file: int(file.stem.rsplit("-", 1)[1]))
        server.store(files[:-2])
        store = open_store()
        assert Volume.open(store.get_image_uri(series)).shape[2] == 11
        server.store(files[-2:])
        assert Volume.open(store.get_image_uri(series)).shape[2] == 13

    def test_images_are_the_servers_affair(self, open_store: Any, send: Any, uploads: Path) -> None:
        series, _ = send()
        store = open_store()
        for action, args in (
            (store.add_image, ("x", str(write_nifti(uploads / "x.nii.gz")), {})),
            (store.remove_image, (series,)),
        ):
            with pytest.raises(HTTPException, match="DICOM server"):
                action(*args)
        assert not leftovers(store, uploads)

    def test_a_real_series(self, open_store: Any, server: Orthanc, real_data: Path, uploads: Path) -> None:
        folder = real_data / "dicom" / "CRLM-CT-1004"
        if not folder.is_dir():
            pytest.skip("no real DICOM series here")
        server.store(folder.iterdir())
        store = open_store()
        (series,) = store.list_images()
        volume = Volume.open(store.get_image_uri(series))
        np.testing.assert_array_equal(volume.array, Volume.open(folder).array)
        np.testing.assert_allclose(volume.affine, Volume.open(folder).affine)
        label = np.zeros(volume.shape, np.uint8)
        label[200:230, 150:160, 12:20] = 1
        store.save_label(series, upload(uploads, store, series, label), FINAL, {})
        again = open_store("other")
        np.testing.assert_array_equal(Volume.open(again.get_label_uri(series, FINAL)).array, label)


class TestLabels:
    def test_a_final_label_is_a_seg_on_the_server_and_a_label_elsewhere(
        self, open_store: Any, send: Any, server: Orthanc, uploads: Path
    ) -> None:
        series, _ = send(orientation=OBLIQUE, reverse=True)
        store = open_store(labels=["tumor", "cyst"])
        label = blob() * 2
        label[2:5, 2:5, 1:3] = 1
        names = [{"name": "tumor", "idx": 2}, {"name": "cyst", "idx": 1, "color": [10, 20, 30]}]
        assert store.save_label(series, upload(uploads, store, series, label), FINAL, {"label_info": names}) == series
        (listed,) = server.search(Modality="SEG")
        seg = pydicom.dcmread(pydicom.filebase.DicomBytesIO(server.instance(listed["0020000E"]["Value"][0])))
        assert segment_names(seg) == {1: "cyst", 2: "tumor"}
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series
        assert store.status()["completed"] == 1
        assert store.get_labeled_images() == [series]
        assert store.get_unlabeled_images() == []
        other = open_store("other", labels=["tumor", "cyst"])
        np.testing.assert_array_equal(Volume.open(other.get_label_uri(series, FINAL)).array, label)
        assert other.get_label_info(series, FINAL)["label_info"] == [
            {"name": "cyst", "idx": 1},
            {"name": "tumor", "idx": 2},
        ]
        assert not leftovers(store, uploads) or leftovers(store, uploads) == [str(uploads / "upload.nii.gz")]

    def test_a_label_of_slicer_keeps_its_names(
        self, open_store: Any, send: Any, server: Orthanc, uploads: Path
    ) -> None:
        series, _ = send()
        store = open_store(labels=["tumor", "cyst"])
        info = {"label_info": [{"name": "cyst", "idx": 2}, {"name": "tumor", "idx": 3}], "client_id": "user-xyz"}
        label = blob()
        label[0, 0, 0] = 2
        store.save_label(series, upload(uploads, store, series, label), FINAL, info)
        found = open_store("other").get_label_info(series, FINAL)["label_info"]
        assert found == [{"name": "cyst", "idx": 1}, {"name": "tumor", "idx": 2}]

    def test_a_value_without_a_name_goes_nowhere(
        self, open_store: Any, send: Any, server: Orthanc, uploads: Path
    ) -> None:
        series, _ = send()
        store = open_store(labels=["tumor", "cyst"])
        with pytest.raises(HTTPException, match="the label holds the values 7") as caught:
            store.save_label(series, upload(uploads, store, series, blob() * 7), FINAL, {})
        assert caught.value.status_code == 400
        assert not server.search(Modality="SEG")
        assert store.get_labeled_images() == []
        assert not leftovers(store, uploads)

    @pytest.mark.parametrize("name", ["a\\b", "x" * 65, "a\nb"])
    def test_a_name_that_no_segment_can_have_goes_nowhere(
        self, open_store: Any, send: Any, server: Orthanc, uploads: Path, name: str
    ) -> None:
        series, _ = send()
        store = open_store(labels=["tumor"])
        info = {"label_info": [{"name": name, "idx": 1}]}
        with pytest.raises(HTTPException, match="cannot be the name of a segment") as caught:
            store.save_label(series, upload(uploads, store, series, blob()), FINAL, info)
        assert caught.value.status_code == 400
        assert not server.search(Modality="SEG")

    def test_a_seg_is_downloaded_once_and_the_newest_counts(
        self, open_store: Any, send: Any, server: Orthanc, uploads: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        series, _ = send()
        writer, reader = open_store("writer"), open_store("reader")
        writer.save_label(series, upload(uploads, writer, series), FINAL, {})
        first = reader.get_label_uri(series, FINAL)
        with monkeypatch.context() as patch:
            patch.setattr(DicomWeb, "instance", None)
            patch.setattr(DicomWeb, "metadata", None)
            assert reader.get_label_uri(series, FINAL) == open_store("reader").get_label_uri(series, FINAL) == first
        time.sleep(0.01)
        changed = np.roll(blob(), 2, axis=0)
        writer.save_label(series, upload(uploads, writer, series, changed), FINAL, {})
        np.testing.assert_array_equal(Volume.open(reader.get_label_uri(series, FINAL)).array, changed)
        assert not Path(first).exists()
        assert reader.status() == {"total": 1, "completed": 1, "label_tags": {FINAL: 1}}

    def test_an_earlier_seg_can_be_read_and_that_of_another_series_cannot(
        self, open_store: Any, send: Any, server: Orthanc, uploads: Path
    ) -> None:
        series, _ = send()
        other, _ = send()
        store = open_store(refresh=60)
        store.save_label(series, upload(uploads, store, series), FINAL, {})
        (found,) = server.search(Modality="SEG")
        earlier = found["0020000E"]["Value"][0]
        time.sleep(0.01)
        store.save_label(series, upload(uploads, store, series, np.roll(blob(), 2, axis=0)), FINAL, {})
        label, names = store.read_segmentation(series, earlier)
        np.testing.assert_array_equal(label.array, blob())
        assert names == {1: "tumor"}
        assert store.read_segmentation(other, earlier) is None
        assert store.read_segmentation("1.2.3", earlier) is None

    def test_the_segs_of_a_study_are_numbered(self, open_store: Any, send: Any, server: Orthanc, uploads: Path) -> None:
        series, _ = send()
        store = open_store()
        for _ in range(2):
            store.save_label(series, upload(uploads, store, series), FINAL, {})
        found = server.search(Modality="SEG")
        assert sorted(seg["00200011"]["Value"][0] for seg in found) == [300, 301]
        assert all(seg["0008103E"]["Value"][0].startswith("tumor 20") for seg in found)

    def test_a_label_that_is_removed_on_the_server_is_gone(
        self, open_store: Any, send: Any, server: Orthanc, uploads: Path
    ) -> None:
        series, _ = send()
        store = open_store()
        store.save_label(series, upload(uploads, store, series), FINAL, {})
        with pytest.raises(HTTPException, match="remove the DICOM SEG there"):
            store.remove_label(series, FINAL)
        server.remove(store.get_label_info(series, FINAL)["SeriesInstanceUID"])
        assert store.get_unlabeled_images() == [series]
        assert store.get_label_uri(series, FINAL) == ""

    def test_other_tags_stay_here(self, open_store: Any, send: Any, server: Orthanc, uploads: Path) -> None:
        series, _ = send()
        store = open_store()
        store.save_label(series, upload(uploads, store, series), "original", {"model": "sam3d"})
        assert not server.search(Modality="SEG")
        assert Volume.open(open_store().get_label_uri(series, "original")).array.any()
        store.remove_label(series, "original")
        assert store.status()["label_tags"] == {}
        assert store.list_images() == [series]

    def test_a_seg_on_another_grid_is_left_out_of_training(
        self, open_store: Any, send: Any, server: Orthanc, tmp_path: Path, uploads: Path
    ) -> None:
        good, _ = send()
        series, _ = write_series(tmp_path / "slices", reverse=True)
        server.store((tmp_path / "slices").iterdir())
        _, headers = open_series(tmp_path / "slices")
        for header in headers:
            header.ImagePositionPatient = [float(value) + 0.5 for value in header.ImagePositionPatient]
        seg = make_seg(headers, blob(), {1: "tumor"})
        seg.save_as(tmp_path / "seg.dcm", write_like_original=False)
        server.store([tmp_path / "seg.dcm"])
        store = open_store()
        store.save_label(good, upload(uploads, store, good), FINAL, {})
        with pytest.raises(VolumeError, match=f"series {series}.*another grid"):
            store.get_label_uri(series, FINAL)
        cases, skipped = labelled_cases(store, ["tumor"])
        assert [case.id for case in cases] == [good]
        assert "another grid" in skipped[series]
        assert [Path(pair["image"]).name for pair in store.datalist()] == [f"{good}.nii.gz"]

    def test_cases_of_a_patient_share_a_side_and_nobody_reads_who(
        self, open_store: Any, send: Any, uploads: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = open_store()
        with caplog.at_level(logging.INFO):
            for patient in ("P-17", "P-17", "P-18", ""):
                series, _ = send(patient=patient)
                store.save_label(series, upload(uploads, store, series), FINAL, {})
            cases, _ = labelled_cases(store, ["tumor"])
        groups = sorted(case.group for case in cases)
        known = [f"patient {patient_hash(patient)}" for patient in ("P-17", "P-17", "P-18")]
        assert sorted(known) == [group for group in groups if group.startswith("patient")]
        assert len(set(groups)) == 3
        told = (
            caplog.text
            + str(store.json())
            + "".join(path.read_text() for path in Path(store._datastore_path).rglob("*.json"))
        )
        assert "P-17" not in told
        assert "Müller" not in told


class TestTrouble:
    def test_credentials_come_from_the_environment_and_stay_secret(
        self, send: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        write_series(tmp_path / "slices")
        with orthanc(tmp_path / "orthanc", ("reader", "se-cr-et")) as server, caplog.at_level(logging.DEBUG):
            server.store((tmp_path / "slices").iterdir())
            store = DicomWebDatastore(DicomWeb(server.dicom_web), tmp_path / "a")
            with pytest.raises(RemoteError, match=r"denies access.*MONAI_LABEL_DICOMWEB_PASSWORD") as caught:
                store.list_images()
            assert caught.value.status == 502
            monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_USERNAME", "reader")
            monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_PASSWORD", "se-cr-et")
            store = DicomWebDatastore(DicomWeb(server.dicom_web), tmp_path / "b")
            (series,) = store.list_images()
            assert store.get_image_uri(series)
        assert "se-cr-et" not in caplog.text

    def test_credentials_in_the_address_are_refused_unread(self) -> None:
        with pytest.raises(Sam3dError, match="MONAI_LABEL_DICOMWEB_USERNAME") as caught:
            DicomWeb("http://reader:se-cr-et@127.0.0.1/dicom-web")
        assert "se-cr-et" not in str(caught.value)

    def test_without_a_server_what_is_here_is_served_and_the_rest_says_why(
        self, tmp_path: Path, uploads: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port, folder = free_port(), tmp_path / "orthanc"
        here, _ = write_series(tmp_path / "slices")
        away, _ = write_series(tmp_path / "slices")
        with orthanc(folder, port=port) as server:
            server.store((tmp_path / "slices").iterdir())
            store = DicomWebDatastore(DicomWeb(server.dicom_web), tmp_path / "cache", labels=["tumor"], refresh=0.001)
            file = upload(uploads, store, here)
        began = time.monotonic()
        assert Volume.open(store.get_image_uri(here)).array.any()
        assert "does not answer" in store.status()["error"]
        assert store.status()["total"] == 2
        for action in (store.list_images, lambda: store.get_image_uri(away), store.datalist):
            with pytest.raises(RemoteError, match=r"does not answer.*--studies") as caught:
                action()
            assert caught.value.status == 503
        with pytest.raises(HTTPException) as refused:
            store.save_label(here, file, FINAL, {})
        assert refused.value.status_code == 503
        assert time.monotonic() - began < 10
        monkeypatch.setattr(dicomweb, "RETRY_SECONDS", 0)
        assert "error" in store.status()
        with orthanc(folder, port=port):
            assert store.status() == {"total": 2, "completed": 0, "label_tags": {}}
            assert store.get_image_uri(away)

    def test_a_server_that_hangs_does_not_hang_this_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dicom_client, "READ_SECONDS", 0.3)
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen()
            store = DicomWebDatastore(DicomWeb(f"http://127.0.0.1:{deaf.getsockname()[1]}/dicom-web"), tmp_path)
            began = time.monotonic()
            assert "does not answer (ReadTimeout)" in store.status()["error"]
            assert "does not answer" in store.status()["error"]  # it is left alone for a while
            assert time.monotonic() - began < 5

    def test_anything_but_a_dicomweb_server_is_reported(self, running: Orthanc, tmp_path: Path) -> None:
        for path, told in (("/nowhere", "answered 404"), ("/app/explorer.html", "answered 404|not DICOM")):
            store = DicomWebDatastore(DicomWeb(running.url + path), tmp_path / path.replace("/", "-"))
            with pytest.raises(RemoteError, match=told) as caught:
                store.list_images()
            assert caught.value.status == 502

    def test_threads_and_processes_share_a_folder(self, open_store: Any, send: Any, uploads: Path) -> None:
        sent = [send()[0] for _ in range(3)]
        stores = [open_store(), open_store()]
        failures = []

        def work(store: DicomWebDatastore) -> None:
            try:
                for series in sent:
                    assert Volume.open(store.get_image_uri(series)).shape == series_array().shape
                    store.update_image_info(series, {"seen": True})
                    assert store.status()["total"] == 3
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(store,)) for store in stores * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert not leftovers(stores[0], uploads)
        assert all(stores[0].get_image_info(series)["seen"] for series in sent)


class TestApp:
    @pytest.fixture
    def app(self, server: Orthanc, send: Any, weights_path: Path, tmp_path: Path, monkeypatch: Any) -> Any:
        monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "cache"))
        conf = {"weights": str(weights_path), "model_dir": str(tmp_path / "model"), "dicomweb_refresh": "0.001"}
        conf |= {"reference_limit": "none", "reference_seconds": "0"}
        return make_app(server.dicom_web, conf)  # type: ignore[arg-type]

    def test_clicks_labels_and_a_training(
        self, app: Any, send: Any, server: Orthanc, uploads: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from lib.trainers import sam3d
        from sam3d_label.training import TrainSettings

        quick = TrainSettings(epochs=1, steps_per_epoch=1, warmup=0, workers=0, precision="fp32")
        monkeypatch.setattr(sam3d, "train_settings", lambda *_, **__: quick)
        series = [send(patient="P-17")[0], send(patient="P-18", modality="MR")[0]]
        store = app.datastore()
        for one in series:
            answer = app.infer({"model": "sam3d", "image": one, "foreground": [[15, 13, 6]]})
            assert nib.Nifti1Image.from_filename(answer["file"]).shape == series_array().shape
            Path(answer["file"]).unlink()
            store.save_label(one, upload(uploads, store, one), FINAL, {})
        assert app.info()["datastore"]["completed"] == 2
        report = app.train({"model": "sam3d", "max_epochs": 1, "device": "cpu"})
        assert report["annotated"] == 2
        (ledger,) = app.model_dir.glob("ledger-*.json")
        assert patient_hash("P-17") in ledger.read_text()
        assert "P-17" not in ledger.read_text()

    def test_an_unknown_series_is_404(self, app: Any) -> None:
        with pytest.raises(HTTPException) as caught:
            app.infer({"model": "sam3d", "image": "1.2.3", "foreground": [[1, 1, 1]]})
        assert caught.value.status_code == 404

    def test_it_starts_without_a_server_and_reports_it(
        self, weights_path: Path, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "cache"))
        conf = {"weights": str(weights_path), "model_dir": str(tmp_path / "model")}
        app = make_app(f"http://127.0.0.1:{free_port()}/dicom-web", conf)  # type: ignore[arg-type]
        assert "start it, or check the address" in caplog.text
        assert "does not answer" in app.info()["datastore"]["error"]
        assert not app.auto_train.tick(lambda: None)
        with pytest.raises(HTTPException) as caught:
            app.infer({"model": "sam3d", "image": "1.2.3", "foreground": [[1, 1, 1]]})
        assert caught.value.status_code == 503
