"""Durable writes: what a reader sees while a file is replaced, what is left after a failure, and how it is reported."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sam3d_label import io
from sam3d_label.errors import DiskFullError, NewerFormatError, ReadOnlyError, Sam3dError, StorageError


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_replaced_file_has_the_new_content_and_no_part_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.json"
    io.write_json(path, {"a": 1})
    io.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert os.listdir(path.parent) == ["file.json"]


def test_a_file_and_its_folder_are_flushed_before_the_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_sync(descriptor: int) -> None:
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def record_rename(source: Any, target: Any) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_rename)
    io.write_text(tmp_path / "file", "text")
    assert events == ["file", "rename", "folder"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.EFBIG, DiskFullError),
        (errno.EROFS, ReadOnlyError),
        (errno.EACCES, ReadOnlyError),
        (errno.EIO, StorageError),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_step_leaves_the_old_content_and_names_the_file_without_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError], step: str
) -> None:
    path = tmp_path / "file.json"
    io.write_json(path, {"a": 1})
    monkeypatch.setattr(os, step, failing(number))
    with pytest.raises(kind, match=r"^file\.json cannot be .*: .*") as caught:
        io.write_json(path, {"a": 2})
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.errno == number
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["file.json"]


def test_an_error_of_another_kind_passes_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), io.replacing(tmp_path / "file"):
        (tmp_path / "missing").read_text()


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        io.write_json(tmp_path / "file.json", {"a": float("nan")})
    assert not os.listdir(tmp_path)


def test_a_torn_last_line_is_ended_before_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    with path.open("ab+", buffering=0) as file:
        io.append_line(file, b"three\n")
    assert path.read_bytes() == b"one\ntw\nthree\n"


def test_a_line_that_cannot_be_flushed_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with path.open("ab+", buffering=0) as file, pytest.raises(OSError, match="No space"):
        io.append_line(file, b"two\n")
    assert path.read_bytes() == b"one\n"


def test_parts_of_killed_writers_are_removed_and_those_of_live_ones_are_not(tmp_path: Path) -> None:
    for name, age in ((f"{io.PART}old.json", 2 * io.ABANDONED), (f"{io.PART}new.json", 0), ("old.json", 2 * 3600)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    assert io.remove_parts(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == [f"{io.PART}new.json", "old.json"]


def test_a_writer_that_is_killed_before_the_rename_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    program = (
        "import os, sys, pathlib, sam3d_label.io as io\n"
        "os.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "io.write_text(pathlib.Path(sys.argv[1]), 'new')\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    assert path.read_text() == "old"
    assert io.remove_parts(tmp_path, older_than=0) == 1


def test_a_file_of_a_newer_release_is_rejected_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    io.write_json(path, io.with_format(3, {"a": 1}))
    with pytest.raises(NewerFormatError, match=r"format 3; this release reads up to 2.*update"):
        io.read_object(path, newest=2)
    assert io.read_object(path, newest=3) == {"a": 1}


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000])
def test_a_damaged_file_is_rejected_with_the_way_out(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(Sam3dError, match="restore it from a backup or remove it"):
        io.read_object(path)


def test_a_lock_that_cannot_be_created_in_a_read_only_folder_is_taken_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, spare = tmp_path / "studies", tmp_path / "tmp"
    folder.mkdir()
    spare.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spare))
    real = io.FileLock

    def lock(file: Path, **options: Any) -> Any:
        if Path(file).parent == folder:
            failing(errno.EROFS)()
        return real(file, **options)

    monkeypatch.setattr(io, "FileLock", lock)
    with io.locked(folder / ".lock"), pytest.raises(TimeoutError), io.locked(folder / ".lock", timeout=0):
        pass
    assert not os.listdir(folder)
