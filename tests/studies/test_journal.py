"""Several files change together, whatever is killed at whatever moment."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sam3d_label import io
from sam3d_label.errors import DiskFullError, NewerFormatError
from sam3d_label.io import part_of, sync_file
from sam3d_label.studies.journal import FILE, Journal

OLD = {"index.json": "old", "labels/a.nii": "old", "labels/a.nrrd": "old"}
NEW = {"index.json": "new", "labels/a.nii": "new"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    restore(tmp_path / "studies")
    return tmp_path / "studies"


def restore(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in OLD.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def change(folder: Path) -> None:
    replace = {}
    for name, content in NEW.items():
        part = part_of(folder / name)
        part.write_text(content)
        sync_file(part)
        replace[part] = folder / name
    Journal(folder).commit(replace, [folder / "labels" / "a.nrrd", folder / "labels" / "missing"])


def state(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(io.PART))
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_a_change_replaces_and_removes_and_leaves_nothing_else(folder: Path) -> None:
    change(folder)
    assert state(folder) == NEW
    assert not list(folder.rglob(f"{io.PART}*"))
    assert not Journal(folder).recover()


def test_a_writer_killed_at_any_write_leaves_the_old_or_the_new_files(folder: Path, killed_at_every_write: Any) -> None:
    seen = []
    for _ in killed_at_every_write(lambda: change(folder)):
        Journal(folder).recover()
        assert state(folder) in (OLD, NEW)
        seen.append(state(folder) == NEW)
        restore(folder)
    assert seen == sorted(seen), "once made, a change stays"
    assert {True, False} == set(seen)


def test_a_reader_killed_while_it_completes_a_change_leaves_it_to_the_next(
    folder: Path, killed_at_every_write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        restore(folder)
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "_complete", lambda *_: None)
            change(folder)

    interrupted()
    for _ in killed_at_every_write(lambda: Journal(folder).recover()):
        Journal(folder).recover()
        assert state(folder) == NEW
        interrupted()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_any_step_refuses_or_completes_the_change(
    folder: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is raised by the first, second, … call."""
    refused = 0
    for step in range(20):
        restore(folder)
        left = iter(range(step))
        original = getattr(os, call)

        def full(*args: Any, left: Any = left, original: Any = original) -> Any:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            try:
                change(folder)
                expected = NEW
            except OSError:
                expected, refused = OLD, refused + 1
        Journal(folder).recover()
        assert state(folder) == expected
    assert 0 < refused < 20


def test_a_journal_without_its_new_content_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "_complete", lambda *_: None)
    change(folder)
    monkeypatch.undo()
    for part in folder.rglob(f"{io.PART}*"):
        part.unlink()
    assert not Journal(folder).recover()
    assert {name: text for name, text in state(folder).items() if "journal" not in name} == OLD


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"format": 1, "replace": [], "remove": ["../x"]}', '{"format": 1, "remove": ["/etc/hostname"]}'],
)
def test_a_damaged_journal_is_set_aside(folder: Path, content: str) -> None:
    io.write_text(folder / FILE, content)
    assert not Journal(folder).recover()
    assert (folder / FILE).with_name("journal.damaged.json").read_text() == content


def test_the_journal_of_a_newer_release_is_rejected_with_the_way_out(folder: Path) -> None:
    io.write_text(folder / FILE, json.dumps({"format": 2, "replace": [], "remove": []}))
    with pytest.raises(NewerFormatError, match="update this installation"):
        Journal(folder).recover()


def test_a_change_of_one_file_needs_no_journal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = part_of(folder / "index.json")
    part.write_text("new")
    monkeypatch.setattr("sam3d_label.studies.journal.write_text", lambda *_: pytest.fail("a journal was written"))
    Journal(folder).commit({part: folder / "index.json"})
    assert (folder / "index.json").read_text() == "new"


def test_a_journal_that_cannot_be_written_is_an_error_that_names_the_way_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    part = folder / ".part-x"
    part.touch()
    with pytest.raises(DiskFullError, match="free some space"):
        Journal(folder).commit({part: folder / "index.json"}, [folder / "labels" / "a.nrrd"])
