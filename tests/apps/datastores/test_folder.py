"""A label and its record change together: kills, full disks, read-only folders, several writers, damaged indexes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException

from lib.datastores.studies import SafeDatastore, remember
from sam3d_label.io import PART
from tests.helpers.app_helpers import SHAPE, write_nifti

FINAL = "final"
INDEX = "datastore_v2.json"
PATTERNS = ["*.nii.gz", "*.nii", "*.nrrd"]


@pytest.fixture
def studies(tmp_path: Path) -> Iterator[Path]:
    """A studies folder with one image, in memory where that is possible: a kill does not need a slow disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield with_an_image(Path(name, "studies"))


def with_an_image(folder: Path) -> Path:
    folder.mkdir()
    write_nifti(folder / "mr.nii.gz")
    return folder


@pytest.fixture
def uploads(tmp_path: Path) -> dict[int, str]:
    """A label file of each value."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    return {n: str(write_nifti(folder / f"{n}.nii.gz", np.full(SHAPE, n, np.uint8))) for n in range(1, 9)}


def opened(folder: Path) -> SafeDatastore:
    return SafeDatastore(str(folder), extensions=PATTERNS)


def saved(store: SafeDatastore, tag: str = FINAL) -> tuple[int, Any]:
    """The value of a label and the value in its record."""
    array = np.asanyarray(nib.Nifti1Image.from_filename(store.get_label_uri("mr", tag)).dataobj)
    assert (array == array.flat[0]).all()
    return int(array.flat[0]), store.get_label_info("mr", tag).get("n")


def refusal(action: Callable[[], object]) -> HTTPException | None:
    try:
        action()
    except HTTPException as error:
        return error
    return None


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{PART}*"))


def test_a_save_killed_at_any_write_leaves_the_old_or_the_new_label_with_its_own_record(
    studies: Path, uploads: dict[int, str], killed_at_every_write: Any
) -> None:
    store = opened(studies)
    store.save_label("mr", uploads[1], FINAL, {"n": 1})
    seen = []
    for _ in killed_at_every_write(lambda: store.save_label("mr", uploads[2], FINAL, {"n": 2})):
        value, recorded = saved(opened(studies))
        assert value == recorded
        seen.append(value)
        store.save_label("mr", uploads[1], FINAL, {"n": 1})
    assert set(seen) == {1, 2}


CHANGES: dict[str, Callable[[SafeDatastore, str, str], object]] = {
    "add an image": lambda store, image, label: store.add_image("new", image, {"n": 1}),
    "replace an image by one of another type": lambda store, image, label: store.add_image("plain", image, {"n": 2}),
    "replace a label by one of another type": lambda store, image, label: store.save_label(
        "mr", label, FINAL, {"n": 2}
    ),
    "remove a label": lambda store, image, label: store.remove_label("mr", FINAL),
    "remove an image": lambda store, image, label: store.remove_image("mr"),
    "add to the metadata": lambda store, image, label: store.update_label_info("mr", FINAL, {"n": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_any_change_killed_at_any_write_happens_completely_or_not_at_all(
    studies: Path, uploads: dict[int, str], tmp_path: Path, change: str, killed_at_every_write: Any
) -> None:
    image = str(write_nifti(tmp_path / "i.nii.gz"))
    plain = str(write_nifti(tmp_path / "l.nii", np.full(SHAPE, 2, np.uint8)))
    opened(studies).add_image("plain", str(write_nifti(tmp_path / "p.nii")), {"n": 1})
    opened(studies).save_label("mr", uploads[1], FINAL, {"n": 1})
    shutil.copytree(studies, tmp_path / "before")
    shutil.copytree(studies, tmp_path / "after")
    CHANGES[change](opened(tmp_path / "after"), image, plain)
    allowed = [listing(tmp_path / "before"), listing(tmp_path / "after")]
    seen = []
    for _ in killed_at_every_write(lambda: CHANGES[change](opened(studies), image, plain)):
        opened(studies)
        assert listing(studies) in allowed
        seen.append(allowed.index(listing(studies)))
        shutil.rmtree(studies)
        shutil.copytree(tmp_path / "before", studies)
    assert set(seen) == {0, 1}


def listing(studies: Path) -> Any:
    """The index without times, and the files that it should list."""
    objects = json.loads((studies / INDEX).read_text())["objects"]
    for entry in objects.values():
        for record in (entry["image"], *entry["labels"].values()):
            for time in ("ts", "uploaded"):
                record["info"].pop(time, None)
    files = {
        str(path.relative_to(studies)): path.read_bytes() for path in studies.rglob("*.nii*") if PART not in path.name
    }
    return json.loads(json.dumps(objects)), files


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_on_a_full_disk_leaves_label_and_record_at_whatever_step(
    studies: Path, uploads: dict[int, str], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(studies)
    store.save_label("mr", uploads[1], FINAL, {"n": 1})
    for step in range(9):
        left, original = iter(range(step)), getattr(os, call)

        def full(*args: Any, left: Any = left, original: Any = original) -> Any:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            error = refusal(lambda: store.save_label("mr", uploads[2], FINAL, {"n": 2}))
        expected = 1 if error else 2
        assert error is None or (error.status_code == 507 and "free some space" in error.detail)
        assert step > 0 or expected == 1
        assert saved(store) == saved(opened(studies)) == (expected, expected)
        assert not parts(studies)
        store.save_label("mr", uploads[1], FINAL, {"n": 1})


def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", "-o", "size=1m")


def test_a_disk_that_is_really_full_refuses_and_works_again_after_space_is_freed(
    small_disk: Path, studies: Path, uploads: dict[int, str]
) -> None:
    shutil.copytree(studies, small_disk / "studies")
    store = opened(small_disk / "studies")
    store.save_label("mr", uploads[1], FINAL, {"n": 1})
    with (small_disk / "fill").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        file.writelines([b"x" * 4096] * 1000)
    for change in (
        lambda: store.save_label("mr", uploads[2], FINAL, {"n": 2}),
        lambda: store.add_image("new", str(studies / "mr.nii.gz"), {}),
        lambda: store.update_image_info("mr", {"x": "y" * 20000}),
    ):
        with pytest.raises(HTTPException) as caught:
            change()
        assert caught.value.status_code == 507
        assert str(small_disk) not in caught.value.detail
    assert saved(store) == saved(opened(small_disk / "studies")) == (1, 1)
    assert store.list_images() == ["mr"]
    (small_disk / "fill").unlink()
    store.save_label("mr", uploads[2], FINAL, {"n": 2})
    assert saved(opened(small_disk / "studies")) == (2, 2)


@pytest.fixture
def read_only(tmp_path: Path, studies: Path, uploads: dict[int, str]) -> Iterator[Path]:
    """A studies folder with a label, which cannot be written; its index does not list `late`."""
    store = opened(studies)
    store.save_label("mr", uploads[1], FINAL, {"n": 1})
    if os.geteuid():
        write_nifti(studies / "late.nii.gz")
        shutil.rmtree(studies / "labels" / "original")
        for folder in (studies, studies / "labels", studies / "labels" / FINAL, studies / ".sam3d"):
            folder.chmod(0o555)
        yield studies
        for folder in (studies, studies / "labels", studies / "labels" / FINAL, studies / ".sam3d"):
            folder.chmod(0o755)
        return
    for disk in mounted(tmp_path / "disk", "-o", "size=4m"):
        shutil.copytree(studies, disk / "studies", ignore=shutil.ignore_patterns(".lock", "original"))
        write_nifti(disk / "studies" / "late.nii.gz")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield disk / "studies"


def test_a_read_only_folder_is_served_and_saving_is_forbidden(read_only: Path, uploads: dict[int, str]) -> None:
    store = opened(read_only)
    assert saved(store) == (1, 1)
    assert store.status() == {"total": 2, "completed": 1, "label_tags": {FINAL: 1}}
    assert store.get_unlabeled_images() == ["late"]
    assert Path(store.get_image_uri("late")).exists()
    for change in (
        lambda: store.save_label("mr", uploads[2], FINAL, {}),
        lambda: store.add_image("new", uploads[1], {}),
        lambda: store.remove_label("mr", FINAL),
        lambda: store.remove_image("mr"),
        lambda: store.update_image_info("mr", {"a": 1}),
    ):
        with pytest.raises(HTTPException) as caught:
            change()
        assert caught.value.status_code == 403
        assert "read-only" in caught.value.detail
        assert str(read_only) not in caught.value.detail
    assert saved(store) == (1, 1)


def test_what_a_read_only_folder_cannot_keep_is_remembered_until_the_server_ends(read_only: Path) -> None:
    store = opened(read_only)
    remember(store, "mr", {"strategy": {"first": {"ts": 1}}})
    remember(store, "mr", {"seen": 1})
    assert store.get_image_info("mr")["strategy"] == {"first": {"ts": 1}}
    assert store.get_image_info("mr")["seen"] == 1
    assert "strategy" not in opened(read_only).get_image_info("mr")


def test_a_server_that_is_started_read_only_changes_nothing_in_the_folder(
    studies: Path, uploads: dict[int, str], tmp_path: Path
) -> None:
    before = sorted(studies.rglob("*"))
    store = SafeDatastore(str(studies), extensions=PATTERNS, read_only=True)
    assert store.list_images() == ["mr"]
    for change in (
        lambda: store.save_label("mr", uploads[2], FINAL, {}),
        lambda: store.add_image("new", uploads[1], {}),
        lambda: store.remove_image("mr"),
    ):
        error = refusal(change)
        assert error is not None
        assert error.status_code == 403
        assert "MONAI_LABEL_DATASTORE_READ_ONLY" in error.detail
    shutil.move(studies / "mr.nii.gz", tmp_path)
    write_nifti(studies / "other.nii.gz")
    store.refresh()
    assert store.list_images() == ["other"]
    (studies / "other.nii.gz").unlink()
    shutil.move(tmp_path / "mr.nii.gz", studies)
    assert sorted(studies.rglob("*")) == before


def test_eight_writers_of_one_label_leave_one_of_them_whole(studies: Path, uploads: dict[int, str]) -> None:
    stores = [opened(studies) for _ in range(2)]  # two servers
    writers = [
        threading.Thread(target=stores[n % 2].save_label, args=("mr", uploads[n], FINAL, {"n": n})) for n in uploads
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    value, recorded = saved(stores[0])
    assert value == recorded
    assert saved(stores[1]) == saved(opened(studies)) == (value, recorded)
    assert not parts(studies)


def test_processes_that_write_at_once_keep_what_the_others_wrote(studies: Path, uploads: dict[int, str]) -> None:
    children = []
    for n in range(1, 5):
        child = os.fork()
        if child == 0:
            try:
                store = opened(studies)
                for turn in range(3):
                    store.save_label("mr", uploads[n], f"tag{n}", {"n": n, "turn": turn})
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    store = opened(studies)
    assert {tag: saved(store, tag) for tag in store.status()["label_tags"]} == {f"tag{n}": (n, n) for n in range(1, 5)}


@pytest.mark.parametrize(
    ("meanwhile", "status", "detail"),
    [
        (lambda store, image: store.remove_image("mr"), 404, "There is no image 'mr'"),
        (lambda store, image: os.unlink(store.get_image_uri("mr")), 404, "gone|removed"),
        (lambda store, image: store.add_image("mr", image, {}), 409, "replaced meanwhile: save the label again"),
    ],
)
def test_an_image_that_is_removed_or_replaced_during_a_save_is_a_clear_error(
    studies: Path,
    uploads: dict[int, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[..., object],
    status: int,
    detail: str,
) -> None:
    store, other = opened(studies), opened(studies)
    image = str(write_nifti(tmp_path / "other.nii.gz"))

    def then(*_: Any) -> None:
        monkeypatch.undo()
        meanwhile(other, image)

    monkeypatch.setitem(SafeDatastore.save_label.__globals__, "check_names", then)
    with pytest.raises(HTTPException, match=detail) as caught:
        store.save_label("mr", uploads[1], FINAL, {})
    assert caught.value.status_code == status
    assert str(studies) not in caught.value.detail
    assert not opened(studies).get_label_uri("mr", FINAL)
    assert not parts(studies)


def test_the_file_that_was_verified_is_the_one_that_is_kept(
    studies: Path, uploads: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(studies)
    module = SafeDatastore.save_label.__globals__
    monkeypatch.setitem(module, "check_names", lambda *_: shutil.copy(uploads[2], uploads[1]))
    store.save_label("mr", uploads[1], FINAL, {"n": 1})
    assert saved(store) == (1, 1)


def test_parts_of_killed_servers_are_never_listed_and_are_removed_when_they_are_old(studies: Path) -> None:
    opened(studies)
    left = [studies / f"{PART}1.mr.nii.gz", studies / "labels" / FINAL / f"{PART}2.mr.nii.gz"]
    for part in left:
        shutil.copy(studies / "mr.nii.gz", part)
    assert opened(studies).status() == {"total": 1, "completed": 0, "label_tags": {}}
    assert all(part.exists() for part in left), "another server may be writing them"
    for part in left:
        os.utime(part, (1, 1))
    opened(studies)
    assert not any(part.exists() for part in left)
