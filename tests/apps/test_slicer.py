"""Slicer's buttons on a running server with the shipped weights, and what its user sees of the answers."""

from __future__ import annotations

import re
import shutil
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monailabel.client.client import MONAILabelClientException

from lib.datastores.studies import SafeDatastore
from lib.trainers.cases import find_targets
from sam3d_label.masks import dice
from tests.helpers.app_helpers import APP, post, serve
from tests.helpers.slicer import Slicer, world

pytestmark = pytest.mark.slow

SAMPLES = APP.parents[1] / "sample-data"
SHAPE = np.array([112, 158, 55])
INSIDE = {"phantom_000": (52, 92, 44), "turned": tuple(SHAPE - 1 - (52, 92, 44))}
"""A voxel of the lesion; `turned` is the same phantom with its axes running the other way, as Slicer's regions show."""


def turned(file: Path) -> nib.Nifti1Image:
    """A volume whose voxels are stored in the opposite order along each axis, and lie where they lay."""
    image = nib.Nifti1Image.from_filename(file)
    way = np.diag([-1.0, -1, -1, 1])
    way[:3, 3] = SHAPE - 1
    return nib.Nifti1Image(np.asarray(image.dataobj)[::-1, ::-1, ::-1], image.affine @ way)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and labels of the phantom as it is and turned."""
    folder = tmp_path_factory.mktemp("samples")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
        shutil.copy(SAMPLES / kind / "phantom_000.nii.gz", folder / kind)
        nib.save(turned(SAMPLES / kind / "phantom_000.nii.gz"), folder / kind / "turned.nii.gz")
    return folder


@pytest.fixture(scope="module")
def studies(samples: Path) -> Path:
    return samples / "images"


@pytest.fixture(scope="module")
def server(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    arguments = ["--studies", str(studies), "--conf", "labels", "tumor,cyst"]
    with serve(arguments, folder) as url:
        yield url


@pytest.fixture
def slicer(server: str, tmp_path: Path) -> Slicer:
    return Slicer(server, tmp_path)


@pytest.fixture
def opened(slicer: Slicer, studies: Path) -> Any:
    """Slicer with a sample open and a segment selected."""

    def opened(name: str, segment: str = "tumor") -> Slicer:
        slicer.open({"id": name}, studies / f"{name}.nii.gz")
        slicer.select(segment)
        return slicer

    return opened


@pytest.fixture
def lesion(samples: Path) -> Any:
    """The lesion of a sample, in the order of axes of ITK."""
    return lambda name: np.asarray(nib.Nifti1Image.from_filename(samples / "labels" / f"{name}.nii.gz").dataobj).T > 0


@pytest.fixture
def inside(studies: Path) -> Any:
    """Where the lesion of a sample is, RAS mm."""
    return lambda name: world(studies / f"{name}.nii.gz", INSIDE[name])


def test_it_finds_models_labels_and_no_training(slicer: Slicer) -> None:
    kinds = {name: model["type"] for name, model in slicer.info["models"].items()}
    assert kinds == {"sam3d": "deepgrow", "sam3d_auto": "segmentation"}
    assert slicer.info["labels"] == ["tumor", "cyst"]
    assert not slicer.client.auth_enabled()
    assert not slicer.client.train_status(check_if_running=True)
    assert slicer.client.train_stop() is None
    assert not {"foreground", "background", "label", "roi"} & slicer.options("models", "sam3d").keys()


@pytest.mark.parametrize(("name", "segment"), [*((name, "tumor") for name in INSIDE), ("turned", "Segment_1")])
def test_a_click_fills_the_selected_segment_where_it_was(
    opened: Any, inside: Any, lesion: Any, name: str, segment: str
) -> None:
    slicer = opened(name, segment)
    answer = slicer.smart_edit([inside(name)])
    i, j, k = INSIDE[name]
    assert slicer.segments[segment][k, j, i]
    assert dice(slicer.segments[segment], lesion(name)) > 0.5
    assert answer["label_names"] == {segment: 1}
    assert answer["model_version"].startswith("tiny"), "the shipped weights serve where none are named"
    assert {key for key, mask in slicer.segments.items() if mask is not None} == {segment}


def test_a_point_outside_takes_its_place_out(opened: Any, inside: Any, studies: Path) -> None:
    slicer = opened("turned")
    slicer.smart_edit([inside("turned")])
    before = slicer.segments["tumor"]
    k, j, i = next(voxel for voxel in np.argwhere(before) if abs(voxel[2] - INSIDE["turned"][0]) > 8)
    slicer.smart_edit([inside("turned")], [world(studies / "turned.nii.gz", (i, j, k))])
    assert not slicer.segments["tumor"][k, j, i]
    slicer.smart_edit([inside("turned")])
    np.testing.assert_array_equal(slicer.segments["tumor"], before, "a point less is the mask before it")


@pytest.mark.parametrize("clicks", [0, 1])
def test_a_region_is_the_box_that_the_user_sees(opened: Any, inside: Any, lesion: Any, clicks: int) -> None:
    slicer = opened("turned")
    corners = np.argwhere(lesion("turned"))[:, ::-1]
    low, high = (world(slicer.file, edge) for edge in (corners.min(0), corners.max(0)))
    region = (low + high) / 2, np.abs(high - low)
    first, second = np.array(slicer.roi(*region)).reshape(3, 2).T
    assert (first > second).any(), "a region has its corners in the order that the axes give"
    assert slicer.smart_edit([inside("turned")] * clicks, roi=region)["boxes"] == 1
    assert dice(slicer.segments["tumor"], lesion("turned")) > 0.5


def test_a_region_that_reaches_out_of_the_volume_ends_at_its_border(opened: Any, inside: Any, server: str) -> None:
    slicer = opened("turned")
    region = inside("turned"), (60, 60, 90)
    pairs = np.array(slicer.roi(*region)).reshape(3, 2)
    within = np.clip(np.sort(pairs), 0, SHAPE[:, None] - 1)
    assert pairs.min() < 0
    slicer.smart_edit([], roi=region)
    with httpx.Client(base_url=server, timeout=60) as http:
        params = {"roi": within.ravel().tolist(), "result_extension": ".nrrd"}
        answer = post(http, "turned", query={"output": "image"}, **params)
    assert np.frombuffer(answer.content.partition(b"\n\n")[2], np.uint8).sum() == slicer.segments["tumor"].sum() > 0


def test_a_segment_does_not_touch_another(opened: Any, inside: Any, studies: Path) -> None:
    slicer = opened("phantom_000")
    slicer.smart_edit([inside("phantom_000")])
    tumor = slicer.segments["tumor"]
    slicer.select("cyst")
    slicer.smart_edit([world(studies / "phantom_000.nii.gz", (20, 30, 20))])
    np.testing.assert_array_equal(slicer.segments["tumor"], tumor)
    assert slicer.segments["cyst"][20, 30, 20]


FAR = (500.0, 500.0, 500.0)
REFUSED: dict[str, tuple[Any, str]] = {
    "click outside the volume": (lambda here: {"inside": [here, FAR]}, "is outside the volume of 112 x 158 x 55"),
    "region outside the volume": (lambda here: {"inside": [here], "roi": (FAR, (9, 9, 9))}, "roi .* is outside"),
    "no point yet": (lambda _: {"inside": []}, "Place a point inside the lesion first"),
    "points outside only": (lambda here: {"inside": [], "outside": [here]}, "at least one click inside"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_reported_in_the_dialog_and_changes_nothing(opened: Any, inside: Any, case: str) -> None:
    make, expected = REFUSED[case]
    slicer = opened("phantom_000")
    with pytest.raises(MONAILabelClientException) as caught:
        slicer.smart_edit(**make(inside("phantom_000")))
    assert re.search(f"Status: 400; Response: .*{expected}", caught.value.msg)
    assert slicer.segments["tumor"] is None


def test_auto_segmentation_fills_the_first_label(opened: Any) -> None:
    slicer = opened("phantom_000")
    answer = slicer.auto_segmentation()
    assert answer["label_names"] == {"tumor": 1}
    assert slicer.segments["tumor"].any()
    assert slicer.segments["cyst"] is None


class TestLocalVolumes:
    VOLUME = SAMPLES / "images" / "phantom_001.nii.gz"
    INSIDE = (19, 104, 8)

    @pytest.fixture
    def here(self) -> list[np.ndarray]:
        return [world(self.VOLUME, self.INSIDE)]

    @pytest.fixture
    def local(self, slicer: Slicer) -> Slicer:
        """Slicer with a volume that the server does not have."""
        slicer.open_local("T1: axial", self.VOLUME)
        slicer.select("tumor")
        return slicer

    def test_it_is_sent_once_and_encoded_once(self, local: Slicer, here: Any) -> None:
        first = local.smart_edit(here)
        session = local.sample["session_id"]
        second = local.smart_edit(here)
        assert (first["encoded"] > 0, second["encoded"]) == (True, 0)
        assert local.sample["session_id"] == session
        i, j, k = self.INSIDE
        mask = local.segments["tumor"]
        assert mask is not None
        assert mask[k, j, i]

    def test_a_session_that_expired_is_reported_and_the_upload_button_helps(self, local: Slicer, here: Any) -> None:
        local.smart_edit(here)
        local.client.remove_session(local.sample["session_id"])
        with pytest.raises(MONAILabelClientException, match="send the image again"):
            local.smart_edit(here)
        local.upload()
        assert local.smart_edit(here)["encoded"] == 0
        remove(local)

    def test_the_details_of_a_failed_session_end_with_the_reason(self, slicer: Slicer, here: Any) -> None:
        slicer.open_local("T1: axial", self.VOLUME)
        slicer.select("tumor")
        slicer.volume = sitk.Image([8, 8, 1], sitk.sitkFloat32)  # a single slice
        with pytest.raises(MONAILabelClientException) as caught:
            slicer.smart_edit(here)
        details = "".join(traceback.format_exception(caught.value))  # what the module puts behind "Show Details"
        assert re.search(r"Status: 400; Response: .*at least two voxels along each axis", details.splitlines()[-1])

    def test_a_label_takes_its_volume_along(self, local: Slicer, here: Any, studies: Path) -> None:
        local.smart_edit(here)
        local.submit_label()
        assert not local.sample["session"]
        stored = nib.Nifti1Image.from_filename(local.client.download_label(local.sample["id"], "final"))
        assert local.segments["tumor"] is not None
        np.testing.assert_array_equal(np.asarray(stored.dataobj).T > 0, local.segments["tumor"])
        np.testing.assert_allclose(stored.affine, nib.Nifti1Image.from_filename(self.VOLUME).affine, atol=1e-4)
        remove(local)


def remove(slicer: Slicer) -> None:
    """Takes what it uploaded out of the datastore, so that other tests do not find it."""
    answer = httpx.delete(f"{slicer.client.get_server_url()}/datastore/", params={"id": slicer.sample["id"]})
    assert answer.status_code == 200, answer.text


class TestLabels:
    """In the order of an afternoon: what one test saves is there in the next."""

    def test_the_next_sample_brings_what_a_batch_found(self, slicer: Slicer, server: str) -> None:
        with httpx.Client(base_url=server, timeout=120) as http:
            body = {"images": ["phantom_000"], "multi_gpu": False}
            http.post("/batch/infer/sam3d_auto", params={"run_sync": True}, json=body).raise_for_status()

            def download(image: str) -> bytes:
                return http.get("/datastore/image", params={"image": image}).raise_for_status().content

            volume = slicer.next_sample("first", download)
        assert volume is not None
        assert volume.name == "phantom_000.nii.gz"
        assert volume.read_bytes() == (SAMPLES / "images" / volume.name).read_bytes()
        assert slicer.segments["tumor"].any()

    def test_a_submitted_label_has_its_names_though_slicer_counts_what_it_leaves_out(
        self, opened: Any, lesion: Any, studies: Path
    ) -> None:
        slicer = opened("phantom_000")
        drawn = lesion("phantom_000")
        slicer.segments = {"background": ~drawn, "cyst": None, "tumor": drawn}
        assert slicer.submit_label() == {"image": "phantom_000", "label": "phantom_000"}
        assert slicer.client.info()["datastore"]["completed"] == 1
        saved = slicer.client.datastore()["objects"]["phantom_000"]["labels"]["final"]["info"]
        assert saved["label_info"] == [{"name": "cyst", "idx": 2}, {"name": "tumor", "idx": 3}]
        (target,), left_out = find_targets(SafeDatastore(str(studies)), "phantom_000", ["tumor", "cyst"])
        assert (target.target, left_out) == ("tumor", [])

    def test_the_next_samples_are_the_others_until_there_are_none(self, slicer: Slicer) -> None:
        def download(image: str) -> bytes:
            return httpx.get(f"{slicer.client.get_server_url()}/datastore/image", params={"image": image}).content

        for strategy in slicer.info["strategies"]:
            volume = slicer.next_sample(strategy, download)
            assert volume is not None
            assert volume.name == "turned.nii.gz"
            assert slicer.segments == {"tumor": None, "cyst": None}
        slicer.submit_label()
        for strategy in slicer.info["strategies"]:
            assert slicer.next_sample(strategy, download) is None

    def test_train_stop_and_the_automatic_update(self, opened: Any, inside: Any) -> None:
        slicer = opened("turned")
        started = slicer.train(max_epochs=50)
        assert started["status"] in ("SUBMITTED", "RUNNING")
        assert started["request"]["max_epochs"] == 50
        wait(lambda: slicer.client.train_status(check_if_running=True), "it does not start")
        with pytest.raises(MONAILabelClientException, match=r"429.*Already Running"):
            slicer.train()
        wait(lambda: next(iter(slicer.client.info()["train_stats"].values())), "it tells nothing")
        assert slicer.progress() == (1, 0)
        slicer.smart_edit([inside("turned")])
        stopped = slicer.client.train_stop()
        assert stopped["status"] == "STOPPED"
        assert stopped["details"][-1], "Slicer reads the last line of a stopped training"
        assert not slicer.client.train_status(check_if_running=True)
        for _ in range(2):
            slicer.auto_update(max_epochs=1)
            wait(lambda: slicer.client.train_status(check_if_running=True), "it does not start again")
        assert slicer.client.train_stop()["details"][-1], "also when it wrote nothing yet"
        assert slicer.client.train_status()["status"] == "STOPPED"

    def test_the_log_can_be_read(self, server: str) -> None:
        answer = httpx.get(f"{server}/logs/", params={"text": True})
        assert answer.status_code == 200


def wait(until: Any, complaint: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < deadline, complaint
        time.sleep(0.2)
    return found
