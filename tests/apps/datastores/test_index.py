"""A damaged index or a bad record never hides the good ones, and never stops the server."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.datastores.studies import SafeDatastore
from sam3d_label.errors import NewerFormatError
from tests.helpers.app_helpers import SHAPE, write_nifti

INDEX = "datastore_v2.json"
NAMES = [{"name": "tumor", "idx": 1}]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Two images with a label each."""
    import numpy as np

    folder = tmp_path / "studies"
    folder.mkdir()
    label = write_nifti(tmp_path / "label.nii.gz", np.ones(SHAPE, np.uint8))
    for name in ("bad", "good"):
        write_nifti(folder / f"{name}.nii.gz")
    store = opened(folder)
    for name in ("bad", "good"):
        store.save_label(name, str(label), "final", {"label_info": NAMES, "client_id": "anna"})
    return folder


def opened(folder: Path) -> SafeDatastore:
    return SafeDatastore(str(folder), extensions=["*.nii.gz"])


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def in_label(value: str) -> Callable[[str], str]:
    """Add a value to what is stored about the label of `bad`."""
    return lambda text: text.replace('"client_id": "anna"', f'"client_id": "anna", "x": {value}', 1)


def with_record(record: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        index = json.loads(text)
        index["objects"]["bad"] = "RECORD"
        return json.dumps(index).replace('"RECORD"', record)

    return change


DAMAGES: dict[str, tuple[Callable[[str], str], bool]] = {
    "NaN": (in_label("NaN"), True),
    "infinity": (in_label("[1, -Infinity]"), True),
    "nested 250 levels": (in_label(nested(250)), True),
    "nested 5000 levels": (in_label(nested(5000)), True),
    "half a surrogate pair": (in_label('"\\ud800"'), True),
    "an integer of 6000 digits": (in_label("9" * 6000), True),
    "no JSON": (in_label("{,}"), True),
    "info is a list": (lambda text: text.replace('"info": {', '"info": [], "was": {', 1), True),
    "a record that is a list": (with_record("[]"), False),
    "a record that is null": (with_record("null"), False),
    "an image without an extension": (with_record('{"image": {"ext": 7}}'), False),
    "an extension that is a path": (with_record('{"image": {"ext": "/../../secret"}}'), False),
    "labels that are a text": (with_record('{"image": {"ext": ".nii.gz"}, "labels": "x"}'), False),
    "a tag that is a path": (with_record('{"image": {"ext": ".nii.gz"}, "labels": {"../..": {"ext": ""}}}'), False),
    "an id that is a path": (lambda text: text.replace('"bad": {', '"../bad": {', 1), False),
    "a name that is a number": (lambda text: text.replace('"new-dataset"', "7", 1), True),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_bad_record_is_left_out_and_all_else_stays(
    studies: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, keeps_client = DAMAGES[damage]
    before = (studies / INDEX).read_text()
    damaged = change(before)
    assert damaged != before
    (studies / INDEX).write_text(damaged)
    with caplog.at_level(logging.ERROR):
        store = opened(studies)
    assert store.status() == {"total": 2, "completed": 2, "label_tags": {"final": 2}}
    assert store.get_label_info("good", "final")["label_info"] == NAMES
    assert "x" not in store.get_label_info("bad", "final")
    assert Path(store.get_label_uri("bad", "final")).is_file()
    if keeps_client and damage != "info is a list":
        assert store.get_label_info("bad", "final")["client_id"] == "anna"
    json.dumps(store.json(), allow_nan=False).encode()
    assert any(INDEX in record.message for record in caplog.records)
    assert [path.read_text() for path in studies.glob("datastore_v2.damaged-*.json")] == [damaged]
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        opened(studies)
    assert not caplog.records, "the index was repaired"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"x" * 10000, b'{"objects": 7}'])
def test_an_index_that_cannot_be_read_is_rebuilt_from_the_files(studies: Path, content: bytes) -> None:
    (studies / INDEX).write_bytes(content)
    store = opened(studies)
    assert store.status() == {"total": 2, "completed": 2, "label_tags": {"final": 2}}
    assert [path.read_bytes() for path in studies.glob("datastore_v2.damaged-*.json")] == [content]
    assert json.loads((studies / INDEX).read_text())["objects"].keys() == {"bad", "good"}


def test_an_index_that_is_cut_off_keeps_the_records_before_the_cut(studies: Path) -> None:
    text = (studies / INDEX).read_text()
    (studies / INDEX).write_text(text[: text.index('"good"') + 20])
    store = opened(studies)
    assert store.get_label_info("bad", "final")["label_info"] == NAMES
    assert store.status()["completed"] == 2


def test_a_running_server_keeps_what_it_knows_when_the_index_is_damaged(studies: Path) -> None:
    store = opened(studies)
    (studies / INDEX).write_text("{")
    assert store.get_label_info("good", "final")["label_info"] == NAMES
    assert opened(studies).get_label_info("good", "final")["label_info"] == NAMES


@pytest.mark.parametrize("field", ["images_dir", "labels_dir"])
def test_unknown_keys_and_older_indexes_are_read(studies: Path, field: str) -> None:
    index: dict[str, Any] = json.loads((studies / INDEX).read_text())
    del index[field]
    index["later"] = index["objects"]["good"]["later"] = index["objects"]["good"]["image"]["later"] = [1]
    (studies / INDEX).write_text(json.dumps(index))
    assert opened(studies).get_label_info("good", "final")["label_info"] == NAMES
    assert not list(studies.glob("*damaged*"))


@pytest.mark.parametrize("name", [INDEX, ".sam3d/gone.json"])
def test_records_of_a_newer_release_are_rejected_and_left_alone(studies: Path, name: str) -> None:
    index = json.loads((studies / INDEX).read_text())
    (studies / name).parent.mkdir(exist_ok=True)
    (studies / name).write_text(json.dumps({**index, "format": 2}))
    before = (studies / name).read_bytes()
    with pytest.raises(NewerFormatError, match="update this installation"):
        opened(studies)
    assert (studies / name).read_bytes() == before
