"""What the datastore takes, what it refuses, and what is left when it refuses."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from fastapi import HTTPException

from lib.datastores.studies import SafeDatastore
from tests.helpers.app_helpers import SHAPE, ball, orthogonal, write_nifti

FINAL = "final"
OBLIQUE = orthogonal()


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    write_nifti(folder / "mr.nii.gz")
    return folder


@pytest.fixture
def store(studies: Path) -> SafeDatastore:
    return SafeDatastore(str(studies), extensions=["*.nii.gz", "*.nii", "*.nrrd"])


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def label(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return (np.indices(shape).sum(0) % 3).astype(np.uint8)


def refusal(action: Callable[..., Any], *args: Any) -> HTTPException:
    with pytest.raises(HTTPException) as caught:
        action(*args)
    return caught.value


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_an_image_and_its_label_come_back_as_they_were_sent(store: SafeDatastore, uploads: Path) -> None:
    image = write_nifti(uploads / "tmp1.nii.gz")
    mask = write_nifti(uploads / "tmp2.nii.gz", label())
    assert store.add_image("ct 2: venous", str(image), {"client_id": "x"}) == "ct 2: venous"
    assert store.save_label("ct 2: venous", str(mask), FINAL, {"label_info": [{"name": "tumor", "idx": 1}]})
    assert Path(store.get_image_uri("ct 2: venous")).read_bytes() == image.read_bytes()
    assert Path(store.get_label_uri("ct 2: venous", FINAL)).read_bytes() == mask.read_bytes()
    assert store.get_image_info("ct 2: venous")["client_id"] == "x"
    assert store.get_label_info("ct 2: venous", FINAL)["label_info"] == [{"name": "tumor", "idx": 1}]
    assert [Path(pair["label"]).name for pair in store.datalist()] == ["ct 2: venous.nii.gz"]


def test_another_process_finds_what_was_saved(store: SafeDatastore, studies: Path, uploads: Path) -> None:
    store.save_label("mr", str(write_nifti(uploads / "t.nii.gz", label())), FINAL, {"by": "me"})
    assert SafeDatastore(str(studies)).get_label_info("mr", FINAL)["by"] == "me"


def test_processes_see_and_keep_what_the_others_save(store: SafeDatastore, studies: Path, uploads: Path) -> None:
    other = SafeDatastore(str(studies))
    for tag, one in {"auto": other, FINAL: store}.items():
        one.save_label("mr", str(write_nifti(uploads / f"{tag}.nii.gz", label())), tag, {"by": tag})
    other.update_image_info("mr", {"seen": 1})
    store.update_label_info("mr", "auto", {"checked": True})
    for one in (store, other, SafeDatastore(str(studies))):
        assert one.status()["label_tags"] == {"auto": 1, FINAL: 1}
        assert one.get_image_info("mr")["seen"] == 1
        assert one.get_label_info("mr", "auto")["checked"]
        assert Path(one.get_label_uri("mr", "auto")).exists()


def test_a_datastore_file_that_somebody_broke_is_not_taken_over(store: SafeDatastore, studies: Path) -> None:
    (studies / "datastore_v2.json").write_text("{")
    assert store.list_images() == ["mr"]


@pytest.mark.parametrize("image_id", ["../x", "a/b", "..", ".hidden", "a\\b", "x" * 201, "a\nb", " ", "a "])
def test_an_id_that_is_not_a_name_is_refused(store: SafeDatastore, studies: Path, uploads: Path, image_id: str) -> None:
    before = tree(studies.parent / "studies")
    upload = write_nifti(uploads / "tmp1.nii.gz")
    error = refusal(store.add_image, image_id, str(upload), {})
    assert error.status_code == 400
    assert "cannot be an image id" in error.detail
    assert tree(studies) == before
    assert not upload.exists()


@pytest.mark.parametrize("tag", ["../../x", "a/b", "", "..", ".x", "final "])
def test_a_tag_that_is_not_a_name_is_refused(store: SafeDatastore, studies: Path, uploads: Path, tag: str) -> None:
    before = tree(studies)
    error = refusal(store.save_label, "mr", str(write_nifti(uploads / "t.nii.gz", label())), tag, {})
    assert (error.status_code, "cannot be a label tag" in error.detail) == (400, True)
    assert tree(studies) == before


def truncated(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:4000]))


def with_nan(path: Path) -> None:
    array = ball()
    array[3, 3, 3] = np.nan
    write_nifti(path, array)


BAD_FILES = {
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "garbage": (lambda path: path.write_bytes(b"not a volume" * 99), "cannot be read"),
    "truncated": (truncated, "cannot be read"),
    "nan": (with_nan, "NaN"),
    "2d": (lambda path: write_nifti(path, np.zeros((9, 9), np.float32)), "2 dimensions"),
    "4d": (lambda path: write_nifti(path, np.zeros((9, 9, 9, 2), np.float32)), "4 dimensions"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_file_that_is_not_one_volume_is_refused(
    store: SafeDatastore, studies: Path, uploads: Path, fault: str
) -> None:
    spoil, expected = BAD_FILES[fault]
    before = tree(studies)
    for action in (
        lambda file: store.add_image("new", file, {}),
        lambda file: store.save_label("mr", file, FINAL, {}),
    ):
        upload = write_nifti(uploads / "tmpabc.nii.gz")
        spoil(upload)
        error = refusal(action, str(upload))
        assert error.status_code == 400
        assert expected in error.detail
        assert str(uploads) not in error.detail
    assert tree(studies) == before
    assert "new" not in store.list_images()


@pytest.mark.parametrize("name", ["t.png", "t.bin", "t"])
def test_a_file_of_another_type_is_refused(store: SafeDatastore, uploads: Path, name: str) -> None:
    upload = uploads / name
    upload.write_bytes(b"x")
    assert "send one of .nii.gz, .nii, .nrrd" in refusal(store.add_image, "new", str(upload), {}).detail
    upload.write_bytes(b"x")
    assert "send one of .nii.gz, .nii, .nrrd" in refusal(store.save_label, "mr", str(upload), FINAL, {}).detail


MOVED = OBLIQUE.copy()
MOVED[0, 3] += 0.5


@pytest.mark.parametrize(
    ("array", "affine", "expected"),
    [
        (label((30, 26, 12)), OBLIQUE, "30 x 26 x 12 voxels, its image 30 x 26 x 13"),
        (label(), MOVED, "0.5 mm from its image"),
        (label(), np.diag([1.0, 1, 1, 1]), "mm from its image"),
        (label() + 0.25, OBLIQUE, "not whole numbers"),
        (label().astype(np.int16) - 1, OBLIQUE, "not whole numbers from 0"),
    ],
)
def test_a_label_that_does_not_fit_its_image_is_refused(
    store: SafeDatastore, studies: Path, uploads: Path, array: np.ndarray, affine: np.ndarray, expected: str
) -> None:
    before = tree(studies)
    error = refusal(store.save_label, "mr", str(write_nifti(uploads / "t.nii.gz", array, affine)), FINAL, {})
    assert error.status_code == 400
    assert expected in error.detail
    assert tree(studies) == before


def test_a_message_about_a_label_names_its_image_and_no_part_file(store: SafeDatastore, uploads: Path) -> None:
    half = write_nifti(uploads / "t.nii.gz", label() * np.float32(0.5))
    error = refusal(store.save_label, "mr", str(half), FINAL, {})
    assert error.detail.startswith("The label of image 'mr' holds values")
    assert ".part" not in error.detail


def test_rounding_of_the_geometry_by_a_client_is_let_through(store: SafeDatastore, uploads: Path) -> None:
    upload = write_nifti(uploads / "t.nii.gz", label().astype(np.float32), OBLIQUE.astype(np.float32) + 1e-5)
    assert store.save_label("mr", str(upload), FINAL, {}) == "mr"


@pytest.mark.parametrize(
    ("told", "sent", "expected"),
    [
        ({1: "cyst", 2: "tumor"}, ["cyst", "tumor"], None),
        ({2: "tumor"}, ["cyst", "tumor"], None),
        ({}, ["cyst", "tumor"], None),
        ({1: "cyst", 2: "tumor"}, [], None),
        ({1: "tumor", 2: "cyst"}, ["cyst", "tumor"], "calls 1 'tumor', the request calls it 'cyst'.*.nii.gz"),
        ({1: "cyst", 2: "tumor"}, ["cyst"], "values 1, 2, but the names of 1 = cyst"),
    ],
)
def test_a_segmentation_of_slicer_that_numbers_its_segments_otherwise_is_refused(
    store: SafeDatastore, studies: Path, uploads: Path, told: dict[int, str], sent: list[str], expected: str | None
) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(label().T))
    image.CopyInformation(sitk.ReadImage(str(studies / "mr.nii.gz")))
    for n, (value, name) in enumerate(told.items()):
        image.SetMetaData(f"Segment{n}_LabelValue", str(value))
        image.SetMetaData(f"Segment{n}_Name", name)
    file = str(uploads / "upload.seg.nrrd")
    sitk.WriteImage(image, file)
    info = {"label_info": [{"name": name, "idx": n} for n, name in enumerate(sent, start=1)]}
    if expected is None:
        assert store.save_label("mr", file, FINAL, info) == "mr"
    else:
        error = refusal(store.save_label, "mr", file, FINAL, info)
        assert (error.status_code, bool(re.search(expected, error.detail))) == (400, True)


def test_an_empty_label_is_a_label(store: SafeDatastore, uploads: Path) -> None:
    assert store.save_label("mr", str(write_nifti(uploads / "t.nii.gz", np.zeros(SHAPE, np.uint8))), FINAL, {}) == "mr"


def test_unknown_images_and_labels_are_404(store: SafeDatastore, uploads: Path) -> None:
    mask = str(write_nifti(uploads / "t.nii.gz", label()))
    for action, args in (
        (store.save_label, ("nobody", mask, FINAL, {})),
        (store.remove_image, ("nobody",)),
        (store.remove_label, ("mr", FINAL)),
        (store.update_image_info, ("nobody", {})),
        (store.update_label_info, ("mr", FINAL, {})),
        (store.get_dataset_archive, (None,)),
    ):
        assert refusal(action, *args).status_code == 404


def test_a_labelled_image_is_not_replaced_by_another(store: SafeDatastore, studies: Path, uploads: Path) -> None:
    store.save_label("mr", str(write_nifti(uploads / "t.nii.gz", label())), FINAL, {"by": "me"})
    before = tree(studies)
    error = refusal(store.add_image, "mr", str(write_nifti(uploads / "u.nii.gz", ball() + 1)), {})
    assert "has labels" in error.detail
    assert tree(studies) == before


@pytest.mark.parametrize(
    "names", [["case.nii"], ["case.nrrd"], ["case.nii", "case.nrrd"], ["case.NII.GZ"], ["case.nii.gz"]]
)
def test_an_upload_leaves_the_files_of_the_folder_as_they_are(studies: Path, uploads: Path, names: list[str]) -> None:
    for name in names:
        source = write_nifti(uploads / "source.nii.gz", ball() + 1)
        if name.endswith(".nrrd"):
            sitk.WriteImage(sitk.ReadImage(str(source)), str(studies / name))
        else:
            write_nifti(uploads / f"source{name[4:].lower()}", ball() + 1).rename(studies / name)
    before = {name: (studies / name).read_bytes() for name in names}
    store = SafeDatastore(str(studies), extensions=["*.nii.gz", "*.nii", "*.nrrd"])
    error = refusal(store.add_image, "case", str(write_nifti(uploads / "u.nii.gz")), {})
    assert error.status_code == 400
    assert "another id" in error.detail
    assert {name: (studies / name).read_bytes() for name in names} == before


def test_an_upload_leaves_a_damaged_file_and_one_that_has_just_come(
    store: SafeDatastore, studies: Path, uploads: Path
) -> None:
    upload = write_nifti(uploads / "u.nii.gz").read_bytes()
    for name, content in {"half": upload[:500], "new": upload + b"x"}.items():
        (studies / f"{name}.nii.gz").write_bytes(content)
        (uploads / "u.nii.gz").write_bytes(upload)
        assert "is kept" in refusal(store.add_image, name, str(uploads / "u.nii.gz"), {}).detail
        assert (studies / f"{name}.nii.gz").read_bytes() == content


def test_an_upload_replaces_an_earlier_upload_until_a_change_of_the_file(
    store: SafeDatastore, studies: Path, uploads: Path
) -> None:
    store.add_image("ct", str(write_nifti(uploads / "u.nii")), {})
    store.add_image("ct", str(write_nifti(uploads / "u.nii.gz", ball() + 1)), {})
    assert sorted(path.name for path in studies.glob("ct*")) == ["ct.nii.gz"]
    write_nifti(studies / "ct.nii.gz", ball() + 2)
    assert "is kept" in refusal(store.add_image, "ct", str(write_nifti(uploads / "u.nii.gz")), {}).detail


def test_a_label_leaves_files_of_other_formats_that_are_not_recorded(
    store: SafeDatastore, studies: Path, uploads: Path
) -> None:
    store.save_label("mr", str(write_nifti(uploads / "t.nii.gz", label())), FINAL, {})
    own = write_nifti(studies / "labels" / FINAL / "mr.nii", label())
    store.save_label("mr", str(write_nifti(uploads / "t.nii.gz", 0 * label())), FINAL, {})
    assert own.exists()
    before = tree(studies)
    refused = refusal(store.remove_label, "mr", FINAL)
    assert (refused.status_code, "labels/final/mr.nii in the studies folder" in refused.detail) == (400, True)
    assert tree(studies) == before


def as_nrrd(source: Path, target: Path) -> bytes:
    sitk.WriteImage(sitk.ReadImage(str(source)), str(target))
    return target.read_bytes()


def test_an_upload_in_another_format_leaves_a_file_that_has_that_name(
    store: SafeDatastore, studies: Path, uploads: Path
) -> None:
    store.add_image("ct", str(write_nifti(uploads / "u.nii.gz")), {})
    theirs = as_nrrd(write_nifti(uploads / "v.nii.gz", ball() + 7), studies / "ct.nrrd")
    store.refresh()
    upload = as_nrrd(write_nifti(uploads / "v.nii.gz", ball() + 3), uploads / "u.nrrd")
    error = refusal(store.add_image, "ct", str(uploads / "u.nrrd"), {})
    assert (error.status_code, "another file ct.nrrd in the studies folder" in error.detail) == (400, True)
    assert (studies / "ct.nrrd").read_bytes() == theirs
    assert (studies / "ct.nii.gz").exists()
    (studies / "ct.nrrd").write_bytes(upload)
    (uploads / "u.nrrd").write_bytes(upload)
    store.add_image("ct", str(uploads / "u.nrrd"), {})
    assert not (studies / "ct.nii.gz").exists()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_label_does_not_overwrite_a_file_without_a_record(
    store: SafeDatastore, studies: Path, uploads: Path, whole: bool, suffix: str
) -> None:
    if suffix == ".nii":
        store.save_label("mr", str(write_nifti(uploads / "t.nii.gz", label())), FINAL, {})
    theirs = write_nifti(studies / "labels" / FINAL / f"mr{suffix}", 2 * label())
    if not whole:
        theirs.write_bytes(theirs.read_bytes()[: theirs.stat().st_size // 2])
        store.refresh()
    before = tree(studies)
    error = refusal(store.save_label, "mr", str(write_nifti(uploads / f"t{suffix}", label())), FINAL, {})
    assert (error.status_code, f"another file labels/final/mr{suffix}" in error.detail) == (400, True)
    assert tree(studies) == before


@pytest.mark.parametrize("heir", ["ct.nii", "labels/final/ct.nii"])
def test_an_image_is_not_removed_while_another_file_would_take_its_place(
    store: SafeDatastore, studies: Path, uploads: Path, heir: str
) -> None:
    store.add_image("ct", str(write_nifti(uploads / "u.nii.gz")), {})
    store.save_label("ct", str(write_nifti(uploads / "t.nii.gz", label())), FINAL, {})
    write_nifti(studies / heir, label())
    before = tree(studies)
    error = refusal(store.remove_image, "ct")
    assert (error.status_code, f"{heir} in the studies folder has the same id" in error.detail) == (400, True)
    assert tree(studies) == before
    (studies / heir).rename(studies / f"{heir[:-6]}other.nii")
    store.remove_image("ct")
    assert "ct" not in store.list_images()


def test_suffixes_in_upper_case_are_served(studies: Path, uploads: Path) -> None:
    write_nifti(uploads / "x.nii.gz").rename(studies / "UPPER.NII.GZ")
    store = SafeDatastore(str(studies), extensions=["*.nii.gz"])
    assert store.list_images() == ["UPPER", "mr"]
    store.save_label("UPPER", str(write_nifti(uploads / "t.nii.gz", label())), FINAL, {})
    assert [Path(pair["image"]).name for pair in store.datalist()] == ["UPPER.NII.GZ"]


def test_what_is_skipped_is_logged_once_and_reported(studies: Path, caplog: pytest.LogCaptureFixture) -> None:
    (studies / "empty.nii.gz").write_bytes(b"")
    (studies / "dir.nii.gz").mkdir()
    store = SafeDatastore(str(studies), extensions=["*.nii.gz"])
    store.refresh()
    lines = [record.getMessage() for record in caplog.records if "not listed" in record.getMessage()]
    assert [line.split()[0] for line in lines] == ["dir.nii.gz", "empty.nii.gz"]
    assert store.status()["skipped"].keys() == {"dir.nii.gz", "empty.nii.gz"}
    assert store.list_images() == ["mr"]
    assert "it is empty" in refusal(store.update_image_info, "empty", {}).detail


def test_the_same_image_again_keeps_its_labels(store: SafeDatastore, studies: Path, uploads: Path) -> None:
    store.save_label("mr", str(write_nifti(uploads / "t.nii.gz", label())), FINAL, {"by": "me"})
    again = uploads / "u.nii.gz"
    again.write_bytes((studies / "mr.nii.gz").read_bytes())
    store.add_image("mr", str(again), {})
    assert store.get_label_info("mr", FINAL)["by"] == "me"


def test_a_new_label_of_another_format_replaces_the_old_file(
    store: SafeDatastore, studies: Path, uploads: Path
) -> None:
    store.save_label("mr", str(write_nifti(uploads / "t.nii.gz", label())), FINAL, {})
    store.save_label("mr", str(write_nifti(uploads / "t.nii", label())), FINAL, {})
    assert [p.name for p in (studies / "labels" / FINAL).iterdir()] == ["mr.nii"]
    assert Path(store.get_label_uri("mr", FINAL)).name == "mr.nii"


def test_a_failed_write_leaves_the_earlier_label(
    store: SafeDatastore, studies: Path, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save_label("mr", str(write_nifti(uploads / "t.nii.gz", label())), FINAL, {})
    before = tree(studies)

    def full_disk(source: str, beside: Path) -> None:
        beside.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("shutil.copyfile", full_disk)
    with pytest.raises(OSError, match="No space"):
        store.save_label("mr", str(write_nifti(uploads / "u.nii.gz", 0 * label())), FINAL, {})
    assert tree(studies) == before


def test_uploads_beside_the_file_watcher_lose_nothing(studies: Path, uploads: Path) -> None:
    store = SafeDatastore(str(studies), extensions=["*.nii.gz"], auto_reload=True)
    try:
        files = [str(write_nifti(uploads / f"t{n}.nii.gz")) for n in range(12)]
        watcher = threading.Thread(target=lambda: [store.refresh() for _ in range(60)])
        senders = [
            threading.Thread(target=store.add_image, args=(f"ct{n}", file, {"sender": n}))
            for n, file in enumerate(files)
        ]
        for thread in (watcher, *senders):
            thread.start()
        for thread in (watcher, *senders):
            thread.join()
        kept = json.loads((studies / "datastore_v2.json").read_text())["objects"]
        assert {name: entry["image"]["info"].get("sender") for name, entry in kept.items()} == {
            "mr": None,
            **{f"ct{n}": n for n in range(12)},
        }
    finally:
        store._observer.stop()
        store._observer.join()


def test_an_upload_in_the_middle_of_a_refresh_is_kept(store: SafeDatastore, uploads: Path) -> None:
    upload = str(write_nifti(uploads / "t.nii.gz"))
    sender = threading.Thread(target=store.add_image, args=("new", upload, {"sender": 1}))
    read = store._reader.read

    def while_refreshing(folder: Path, preferred: Mapping[str, str] | None = None) -> Any:
        store._reader.read = read
        sender.start()
        sender.join(1)  # it has to wait for the refresh: without a lock it would be done by then
        return read(folder, preferred)

    store._reader.read = while_refreshing
    store.refresh()
    sender.join()
    assert store.get_image_info("new")["sender"] == 1


def test_a_file_with_a_dotted_name_keeps_its_id(studies: Path) -> None:
    nib.save(nib.Nifti1Image(ball(), OBLIQUE), studies / "1.2.840.nii.gz")
    nib.save(nib.Nifti1Image(ball(), OBLIQUE), studies / "a.nii.b.nii")
    assert {"1.2.840", "a.nii.b", "mr"} == set(SafeDatastore(str(studies)).list_images())
