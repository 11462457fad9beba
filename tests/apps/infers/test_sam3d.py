"""The inference task: from a request to a mask file."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from fastapi import HTTPException

from lib.infers.open_volumes import OpenVolumes, Segmenters, file_key
from lib.infers.sam3d import SAM3DAutoTask, SAM3DInferTask, VolumeTask, crop_to_content, resolve_device
from sam3d_label import Click, Segmenter
from sam3d_label.errors import PromptError, VolumeError
from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.uncertainty import UncertaintyMap
from sam3d_label.training.busy import BusySign
from sam3d_label.weights import open_weights
from tests.helpers.app_helpers import CENTRE, OBLIQUE, SHAPE, ball, write_nifti, write_weights
from tests.helpers.networks import SMALL


def serving(weights: Path, cache_bytes: int = 2**26) -> Segmenters:
    return Segmenters(lru_cache(lambda device: open_weights(str(weights), device=device)), cache_bytes)


@pytest.fixture
def task(weights_path: Path, tmp_path: Path) -> SAM3DInferTask:
    return SAM3DInferTask(serving(weights_path), BusySign(tmp_path), ["tumor", "cyst"])


@pytest.fixture
def auto(weights_path: Path, tmp_path: Path) -> SAM3DAutoTask:
    return SAM3DAutoTask(serving(weights_path), BusySign(tmp_path), ["tumor", "cyst"])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_nifti(tmp_path / "mr.nii.gz")


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def run(task: VolumeTask, image: Path, **params: Any) -> tuple[Path, dict[str, Any]]:
    clicks = {"foreground": [CENTRE]} if isinstance(task, SAM3DInferTask) else {}
    file, answer = task({"image": str(image), **clicks, **params})
    return Path(file), json.loads(json.dumps(answer))


def test_info_is_what_the_viewers_list(task: SAM3DInferTask) -> None:
    info = json.loads(json.dumps(task.info()))
    assert (info["type"], info["dimension"], info["labels"]) == ("deepgrow", 3, ["tumor", "cyst"])
    assert not {"foreground", "background", "label"} & info["config"].keys()


def test_the_answer_names_label_version_times_and_box(task: SAM3DInferTask, image: Path) -> None:
    _, answer = run(task, image, label="cyst", background=[[1, 1, 1]])
    assert answer["label_names"] == {"cyst": 1}
    assert answer["model_version"] == "small-1"
    assert answer["clicks"] == {"positive": 1, "negative": 1}
    assert set(answer["latencies"]) == {"pre", "infer", "write", "total"}
    assert answer["modality"] is answer["modality_from"] is None  # these weights have one rule for all modalities
    assert answer["changed_box"] is None or len(answer["changed_box"]) == 6


@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz", ".nii"])
@pytest.mark.parametrize("compress", [False, True])
def test_the_mask_is_on_the_stored_grid(
    task: SAM3DInferTask, image: Path, results: Path, extension: str, compress: bool
) -> None:
    file, _ = run(task, image, result_extension=extension, result_compress=compress)
    mask, source = sitk.ReadImage(str(file)), sitk.ReadImage(str(image))
    assert file.name.endswith(extension)
    assert mask.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    assert mask.GetSize() == SHAPE
    for ours, theirs in (
        (mask.GetOrigin(), source.GetOrigin()),
        (mask.GetSpacing(), source.GetSpacing()),
        (mask.GetDirection(), source.GetDirection()),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert set(np.unique(sitk.GetArrayFromImage(mask))) <= {0, 1}
    assert files(results) == [file]


def test_voxels_are_written_in_stored_order(task: SAM3DInferTask, image: Path) -> None:
    raw, _ = run(task, image, result_extension=".nrrd")
    nifti, _ = run(task, image, result_extension=".nii.gz")
    header, _, body = raw.read_bytes().partition(b"\n\n")
    assert b"encoding: raw" in header
    assert b"space: left-posterior-superior" in header
    x_fastest = np.asarray(nib.Nifti1Image.from_filename(nifti).dataobj).tobytes(order="F")
    assert body == x_fastest


@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz"])
def test_a_sheared_affine_as_of_a_tilted_gantry_is_kept(task: SAM3DInferTask, tmp_path: Path, extension: str) -> None:
    sheared = write_nifti(tmp_path / "tilt.nii.gz", affine=OBLIQUE)
    file, _ = run(task, sheared, result_extension=extension)
    np.testing.assert_allclose(Volume.open(file).affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize(("shape", "encoding"), [(SHAPE, b"gzip"), ((17, 19, 13), b"raw")])
def test_gzip_only_where_ohif_can_read_it(
    task: SAM3DInferTask, tmp_path: Path, shape: tuple[int, int, int], encoding: bytes
) -> None:
    image = write_nifti(tmp_path / "x.nii.gz", ball(shape))
    file, _ = run(task, image, foreground=[[8, 8, 6]], result_extension=".nrrd", result_compress=True)
    assert b"encoding: " + encoding in file.read_bytes()[:1000]


@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz"])
def test_a_cropped_mask_holds_its_voxels_at_their_place(task: SAM3DInferTask, image: Path, extension: str) -> None:
    whole = Volume.open(run(task, image)[0])
    file, answer = run(task, image, result_crop=True, result_extension=extension)
    part = Volume.open(file)
    i0, i1, j0, j1, k0, k1 = answer["crop_box"]
    assert part.shape == (i1 - i0, j1 - j0, k1 - k0)
    back = np.zeros(SHAPE)
    back[i0:i1, j0:j1, k0:k1] = part.array
    np.testing.assert_array_equal(back, whole.array)
    np.testing.assert_allclose(part.affine @ [0, 0, 0, 1], whole.affine @ [i0, j0, k0, 1], atol=1e-4)


@pytest.mark.parametrize(
    ("inside", "box"),
    [
        ([], None),
        ([(3, 4, 5)], [3, 5, 4, 6, 5, 7]),
        ([(7, 7, 7)], [6, 8, 6, 8, 6, 8]),
        ([(1, 2, 3), (4, 2, 3)], [1, 5, 2, 4, 3, 5]),
    ],
)
def test_a_crop_has_two_voxels_along_each_axis(inside: list[tuple[int, int, int]], box: list[int] | None) -> None:
    array = np.zeros((8, 8, 8), np.uint8)
    for voxel in inside:
        array[voxel] = 1
    crop, volume, found = crop_to_content(array, Volume(np.zeros((8, 8, 8)), np.eye(4)))
    assert crop.sum() == array.sum()
    assert min(crop.shape) >= 2
    assert volume.shape == crop.shape
    assert found == box
    if found:
        assert volume.affine[:3, 3].tolist() == found[::2]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_the_wished_type(task: SAM3DInferTask, image: Path, dtype: str) -> None:
    file, _ = run(task, image, result_extension=".nii", result_dtype=dtype)
    assert nib.Nifti1Image.from_filename(file).get_data_dtype() == np.dtype(dtype)


def test_without_a_wish_the_format_is_that_of_the_image(task: SAM3DInferTask, tmp_path: Path) -> None:
    nrrd = tmp_path / "mr.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(ball()), str(nrrd))
    assert run(task, nrrd, foreground=[[6, 13, 15]])[0].suffix == ".nrrd"


def test_the_second_click_in_one_place_encodes_nothing(task: SAM3DInferTask, image: Path) -> None:
    _, first = run(task, image)
    _, second = run(task, image, background=[[14, 12, 6]])
    task.clear_cache()
    _, third = run(task, image)
    assert (first["encoded"] > 0, second["encoded"], third["encoded"] > 0) == (True, 0, True)


def test_a_changed_file_is_read_again(task: SAM3DInferTask, image: Path) -> None:
    run(task, image)
    write_nifti(image, ball()[:, :, ::-1] * 2)
    assert run(task, image)[1]["encoded"] > 0
    write_nifti(image, ball((12, 12, 12)))
    with pytest.raises(PromptError, match="12 x 12 x 12"):
        run(task, image)


def test_a_mask_does_not_depend_on_what_was_requested_before(
    task: SAM3DInferTask, weights_path: Path, image: Path, tmp_path: Path
) -> None:
    other = write_nifti(tmp_path / "other.nii.gz", ball()[::-1])
    run(task, other)
    run(task, image, foreground=[[3, 3, 3]], background=[[20, 20, 10]])
    used, _ = run(task, image)
    fresh, _ = run(SAM3DInferTask(serving(weights_path, 1), BusySign(tmp_path), ["tumor"]), image)
    np.testing.assert_array_equal(
        nib.Nifti1Image.from_filename(used).get_fdata(), nib.Nifti1Image.from_filename(fresh).get_fdata()
    )


def test_people_on_several_volumes_do_not_disturb_each_other(task: SAM3DInferTask, tmp_path: Path) -> None:
    images = [write_nifti(tmp_path / f"{n}.nii.gz", ball() + 10 * n * np.indices(SHAPE)[n]) for n in range(3)]
    clicks = [[[5 + 2 * n, 5 + 2 * n, 2 + n]] for n in range(4)]
    jobs = [(image, click) for click in clicks for image in images]
    alone = [nib.Nifti1Image.from_filename(run(task, image, foreground=click)[0]).get_fdata() for image, click in jobs]
    task.clear_cache()
    with ThreadPoolExecutor(6) as pool:
        together = list(
            pool.map(
                lambda job: nib.Nifti1Image.from_filename(run(task, job[0], foreground=job[1])[0]).get_fdata(), jobs
            )
        )
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"foreground": [[30, 0, 0]]}, "is outside the volume of 30 x 26 x 13"),
        ({"foreground": [[0, -1, 0]]}, "is outside the volume of 30 x 26 x 13"),
        ({"background": [[99, 0, 0]]}, "is outside the volume"),
        ({"background": [CENTRE, [1, 1, 1]]}, "both inside and outside"),
        ({"foreground": [], "background": [[1, 1, 1]]}, "at least one click inside"),
        ({"roi": [40, 50, 0, 5, 0, 5]}, "roi .* is outside the volume of 30 x 26 x 13"),
        ({"device": "NVIDIA Abacus"}, "no 'NVIDIA Abacus' here, only cpu"),
    ],
)
def test_prompts_that_do_not_fit(
    task: SAM3DInferTask, image: Path, results: Path, params: dict[str, Any], expected: str
) -> None:
    with pytest.raises(PromptError, match=expected):
        run(task, image, **params)
    assert not files(results)


@pytest.mark.parametrize("name", ["nan", "flat", "series", "empty", "truncated", "text"])
def test_files_that_are_not_one_volume(task: SAM3DInferTask, studies: Path, name: str) -> None:
    for _ in range(2):
        with pytest.raises(VolumeError):
            run(task, studies / f"{name}.nii.gz")


def test_a_region_of_slicer_works_as_a_prompt(task: SAM3DInferTask, image: Path) -> None:
    _, answer = run(task, image, foreground=[], roi=[20, 10, 18, 8, -3, 40])
    assert answer["boxes"] == 1


def test_a_prompt_that_the_weights_have_not_learned_is_refused(image: Path, tmp_path: Path) -> None:
    weights = write_weights(tmp_path, capabilities=("positive_click",))
    task = SAM3DInferTask(serving(weights), BusySign(tmp_path), ["tumor"])
    run(task, image)
    for result in ("mask", "uncertainty"):
        with pytest.raises(PromptError, match="small-1 have not learned clicks outside, only: positive_click"):
            run(task, image, background=[[1, 1, 1]], result=result)
        with pytest.raises(PromptError, match="have not learned boxes"):
            run(task, image, roi=[1, 5, 1, 5, 1, 5], result=result)


class TestCandidates:
    def test_each_mask_is_a_bit_of_the_file(self, image: Path, tmp_path: Path) -> None:
        weights = write_weights(tmp_path, config=replace(SMALL, fine=(4, 6), geodesic=(3.0,), candidates=3))
        task = SAM3DInferTask(serving(weights), BusySign(tmp_path), ["tumor"])
        expected = Segmenter.open(image, str(weights)).candidates([Click((15, 13, 6))])
        file, answer = run(task, image, result="candidates", result_dtype="float32")
        stored = Volume.open(file)
        assert sitk.ReadImage(str(file)).GetPixelIDTypeAsString() == "8-bit unsigned integer"
        assert [listed["value"] for listed in answer["candidates"]] == [1, 2, 4]
        for listed, candidate in zip(answer["candidates"], expected, strict=True):
            mask = (stored.array.astype(int) & listed["value"]) > 0
            np.testing.assert_array_equal(mask, candidate.result.mask > 0)
            assert listed["voxels"] == mask.sum()
            assert listed["predicted_dice"] == pytest.approx(candidate.predicted_dice, abs=1e-4)
        assert answer["clicks"] == {"positive": 1, "negative": 0}

    @pytest.mark.parametrize("result", ["mask", "uncertainty"])
    def test_one_of_another_version_is_ignored_with_a_sentence(
        self, task: SAM3DInferTask, image: Path, result: str
    ) -> None:
        choice = {"number": 1, "foreground": [CENTRE], "version": "0007"}
        file, answer = run(task, image, result=result, chosen_candidate=choice)
        assert "belongs to other weights than the active version" in answer["ignored_candidate"]
        without, plain = run(task, image, result=result)
        np.testing.assert_array_equal(Volume.open(file).array, Volume.open(without).array)
        assert "ignored_candidate" not in plain
        with pytest.raises(PromptError, match="have no candidates"):
            run(task, image, result=result, chosen_candidate={**choice, "version": answer["model_version"]})

    def test_weights_with_one_mask_are_named(self, task: SAM3DInferTask, image: Path) -> None:
        with pytest.raises(PromptError, match="the weights small-1 have no candidates"):
            run(task, image, result="candidates")


class TestUncertainty:
    def test_the_map_is_on_the_stored_grid_with_the_next_click(
        self, task: SAM3DInferTask, image: Path, weights_path: Path
    ) -> None:
        expected = Segmenter.open(image, str(weights_path)).uncertainty([Click((15, 13, 6))])
        for extension in (".nrrd", ".nii.gz"):
            file, answer = run(task, image, result="uncertainty", result_dtype="uint8", result_extension=extension)
            stored = Volume.open(file)
            assert sitk.ReadImage(str(file)).GetPixelIDTypeAsString() == "32-bit float"
            np.testing.assert_allclose(stored.affine, Volume.open(image).affine, atol=1e-5)
            np.testing.assert_array_equal(stored.array, expected.map)
            assert 0 <= stored.array.min() <= stored.array.max() <= 1
            assert answer["next_click"] == (None if expected.next_click is None else list(expected.next_click))
            assert {"label_names", "latencies", "model_version", "clicks"} <= answer.keys()

    @pytest.mark.parametrize("voxel", [None, tuple(np.array([3, 2, 1]))])
    def test_the_next_click_is_a_voxel_or_null(
        self, task: SAM3DInferTask, image: Path, voxel: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = UncertaintyMap(map=np.zeros(SHAPE, np.float32), next_click=voxel, seconds=0.1, model_version="1")
        monkeypatch.setattr(Segmenter, "uncertainty", lambda *_: found)
        assert run(task, image, result="uncertainty")[1]["next_click"] == (None if voxel is None else [3, 2, 1])

    @pytest.mark.parametrize("wish", ["entropy", 1, "", ["mask"]])
    def test_another_wish_is_refused(self, task: SAM3DInferTask, image: Path, wish: Any) -> None:
        with pytest.raises(PromptError, match=r"result: .*'mask', 'uncertainty' or 'candidates'"):
            run(task, image, result=wish)

    @pytest.mark.parametrize("result", ["uncertainty", "candidates"])
    def test_only_masks_can_be_saved(self, task: SAM3DInferTask, image: Path, result: str) -> None:
        with pytest.raises(PromptError, match=f"{result} cannot be saved"):
            run(task, image, result=result, save_label=True)

    @pytest.mark.parametrize("wish", ["mask", None])
    def test_the_mask_is_what_comes_otherwise(self, task: SAM3DInferTask, image: Path, wish: Any) -> None:
        file, answer = run(task, image, result=wish)
        assert "changed_box" in answer
        assert "next_click" not in answer
        np.testing.assert_array_equal(
            nib.Nifti1Image.from_filename(file).get_fdata(),
            nib.Nifti1Image.from_filename(run(task, image)[0]).get_fdata(),
        )


class TestAuto:
    def test_info_lists_it_for_automatic_segmentation(self, auto: SAM3DAutoTask) -> None:
        info = json.loads(json.dumps(auto.info()))
        assert (info["type"], info["dimension"], info["labels"]) == ("segmentation", 3, ["tumor", "cyst"])

    @pytest.mark.parametrize("extension", [".nrrd", ".nii.gz"])
    def test_the_mask_of_the_whole_volume(
        self, auto: SAM3DAutoTask, image: Path, weights_path: Path, extension: str
    ) -> None:
        expected = Segmenter.open(image, str(weights_path)).segment_unprompted()
        file, answer = run(auto, image, result_extension=extension)
        mask = Volume.open(file)
        assert sitk.ReadImage(str(file)).GetPixelIDTypeAsString() == "8-bit unsigned integer"
        np.testing.assert_array_equal(mask.array, expected.mask)
        np.testing.assert_allclose(mask.affine, Volume.open(image).affine, atol=1e-5)
        assert answer["label_names"] == {"tumor": 1}
        assert answer["model_version"] == "small-1"
        assert answer["changed_box"] == (None if expected.changed_box is None else list(expected.changed_box))
        assert set(answer["latencies"]) == {"pre", "infer", "write", "total"}

    @pytest.mark.parametrize(
        ("asked", "names"),
        [
            ({}, {"tumor": 1}),
            ({"label": "tumor"}, {"tumor": 1}),
            ({"label_prompt": [1]}, {"tumor": 1}),
            ({"label_prompt": None}, {"tumor": 1}),
        ],
    )
    def test_the_label_asked_for(
        self, auto: SAM3DAutoTask, image: Path, asked: dict[str, Any], names: dict[str, int]
    ) -> None:
        file, answer = run(auto, image, **asked)
        assert answer["label_names"] == names
        assert set(np.unique(nib.Nifti1Image.from_filename(file).get_fdata())) <= {0, *names.values()}

    @pytest.mark.parametrize("asked", [{"label": "cyst"}, {"label_prompt": [2]}, {"label_prompt": [1, 2]}])
    def test_a_label_that_the_model_does_not_find_is_rejected(
        self, auto: SAM3DAutoTask, image: Path, asked: dict[str, Any]
    ) -> None:
        with pytest.raises(PromptError, match=r"cannot find cyst without a click, only tumor.*inside the cyst"):
            run(auto, image, **asked)

    @pytest.mark.parametrize("name", ["mass", "Tumor", "x" * 300])
    def test_a_name_that_is_unknown_gets_no_mask(self, auto: SAM3DAutoTask, image: Path, name: str) -> None:
        with pytest.raises(PromptError, match=f"cannot find {name[:100]} without a click, only tumor") as caught:
            run(auto, image, label=name)
        assert "programs" not in str(caught.value)

    def test_nothing_ticked_is_rejected(self, auto: SAM3DAutoTask, image: Path) -> None:
        with pytest.raises(PromptError, match="No structure is ticked: tick tumor"):
            run(auto, image, label_prompt=[])

    @pytest.mark.parametrize("numbers", [[3], [0], [1, 3]])
    def test_a_number_of_no_label_is_rejected(self, auto: SAM3DAutoTask, image: Path, numbers: list[int]) -> None:
        with pytest.raises(PromptError, match=f"no label {numbers[-1]}, only 1 = tumor, 2 = cyst"):
            run(auto, image, label_prompt=numbers)

    def test_a_second_run_is_answered_from_the_cache(self, auto: SAM3DAutoTask, image: Path) -> None:
        (first, made), (second, kept) = (run(auto, image, label="tumor") for _ in range(2))
        assert (made["cached"], kept["cached"], kept["encoded"]) == (False, True, 0)
        assert {**kept, "cached": False, "encoded": made["encoded"], "latencies": made["latencies"]} == made
        np.testing.assert_array_equal(Volume.open(first).array, Volume.open(second).array)

    def test_an_image_that_was_replaced_is_computed_again(self, auto: SAM3DAutoTask, image: Path) -> None:
        run(auto, image)
        stat = image.stat()
        os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        assert not run(auto, image)[1]["cached"]

    def test_progress_is_shown_while_it_runs(self, auto: SAM3DAutoTask, image: Path) -> None:
        seen = []
        segment = Segmenter.segment_unprompted

        def watched(self: Segmenter, progress: Any) -> Any:
            def both(done: int, total: int) -> None:
                progress(done, total)
                seen.append((auto.progress("id"), done, total))

            return segment(self, both)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Segmenter, "segment_unprompted", watched)
            run(auto, image, image_id="id")
        assert [(state.done, state.total) for state, _, _ in seen] == [(done, total) for _, done, total in seen]
        assert seen[-1][1] == seen[-1][2] > 0
        assert auto.progress("id") is None

    def test_the_label_that_the_weights_know_is_found_wherever_it_is_listed(self, image: Path, tmp_path: Path) -> None:
        task = SAM3DAutoTask(serving(write_weights(tmp_path, labels=("tumor",))), BusySign(tmp_path), ["cyst", "tumor"])
        assert task.info()["unprompted_label"] == "tumor"
        assert run(task, image)[1]["label_names"] == {"tumor": 1}
        assert run(task, image, label_prompt=[2])[1]["label_names"] == {"tumor": 2}
        with pytest.raises(PromptError, match="cannot find cyst"):
            run(task, image, label_prompt=[1])

    def test_info_names_no_label_where_weights_need_clicks(self, tmp_path: Path) -> None:
        weights = write_weights(tmp_path, capabilities=("positive_click",))
        assert SAM3DAutoTask(serving(weights), BusySign(tmp_path), ["tumor"]).info()["unprompted_label"] is None

    @pytest.mark.parametrize(
        "params",
        [
            {"foreground": [CENTRE]},
            {"points": [CENTRE]},
            {"cyst": [CENTRE]},
            {"roi": [1, 5, 1, 5, 1, 5]},
            {"result": "uncertainty"},
            {"result": "candidates"},
        ],
    )
    def test_prompts_belong_to_the_other_model(self, auto: SAM3DAutoTask, image: Path, params: dict[str, Any]) -> None:
        with pytest.raises(PromptError, match="to sam3d"):
            run(auto, image, **params)

    def test_empty_lists_of_clicks_are_no_clicks(self, auto: SAM3DAutoTask, image: Path) -> None:
        run(auto, image, foreground=[], background=None, roi=[])

    def test_weights_that_need_clicks_are_refused(self, image: Path, tmp_path: Path) -> None:
        weights = write_weights(tmp_path, capabilities=("positive_click", "box"))
        with pytest.raises(PromptError, match="small-1 have not learned to segment without a click, only: positive_"):
            run(SAM3DAutoTask(serving(weights), BusySign(tmp_path), ["tumor"]), image)


@pytest.mark.parametrize("name", [None, "cpu", "cuda", "cuda:0"])
def test_devices_that_every_server_has(name: str | None) -> None:
    assert resolve_device(name).split(":")[0] in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["cpu:7", "meta", "nonsense", "NVIDIA Abacus"])
def test_devices_that_it_has_not(name: str) -> None:
    with pytest.raises(PromptError, match="only cpu"):
        resolve_device(name)


def test_weights_do_not_travel_over_http(task: SAM3DInferTask) -> None:
    assert task.get_path() is None
    with pytest.raises(HTTPException):
        task.get_path(validate=False)


class TestOpenVolumes:
    def fake(self, voxels: int) -> Any:
        volume = Volume(np.zeros((2, 2, voxels // 4), np.float32), np.eye(4))
        return type("Opened", (), {"volume": volume})()

    def test_the_budget_holds_and_the_last_one_stays(self) -> None:
        volumes = OpenVolumes(max_bytes=4 * 250)
        for name in "abc":
            with volumes.borrow(name, lambda: self.fake(100)):
                pass
        assert len(volumes) == 2
        with volumes.borrow("big", lambda: self.fake(1000)):
            pass
        assert len(volumes) == 1

    def test_an_opened_volume_is_not_opened_again(self) -> None:
        volumes = OpenVolumes(10**6)
        opened: list[str] = []

        def opening(name: str) -> Any:
            opened.append(name)
            return self.fake(100)

        for name in "aab":
            with volumes.borrow(name, partial(opening, name)):
                pass
        assert opened == ["a", "b"]

    def test_one_volume_is_lent_to_one_request_at_a_time_and_two_to_two(self) -> None:
        volumes = OpenVolumes(10**6)
        both_in = threading.Barrier(2, timeout=20)

        def meet(name: str) -> None:
            with volumes.borrow(name, lambda: self.fake(100)):
                both_in.wait()

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(meet, "ab"))

        second_in = threading.Event()

        def come_second() -> None:
            with volumes.borrow("a", lambda: self.fake(100)):
                second_in.set()

        with ThreadPoolExecutor(1) as pool:
            with volumes.borrow("a", lambda: self.fake(100)):
                pool.submit(come_second)
                assert not second_in.wait(0.1)
            assert second_in.wait(20)

    def test_a_renewed_one_is_kept(self) -> None:
        volumes = OpenVolumes(10**6)
        seen: list[Any] = []
        for _ in range(2):
            with volumes.borrow("a", lambda: self.fake(100), lambda one: self.fake(100) if not seen else one) as lent:
                seen.append(lent)
        assert seen[0] is seen[1]

    def test_a_failure_is_not_kept(self) -> None:
        volumes = OpenVolumes(10**6)

        def fail() -> Any:
            raise VolumeError("broken")

        with pytest.raises(VolumeError), volumes.borrow("a", fail):
            pass
        assert len(volumes) == 0

    def test_the_key_of_a_file_follows_its_content(self, tmp_path: Path) -> None:
        file = tmp_path / "a"
        file.write_bytes(b"1")
        link = tmp_path / "b"
        link.symlink_to(file)
        before = file_key(file)
        assert file_key(link) == before
        file.write_bytes(b"12")
        assert file_key(file) != before
        assert file_key(tmp_path) != before
