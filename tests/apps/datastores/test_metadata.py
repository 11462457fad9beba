"""Metadata that a later read could not send is rejected before it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException

from lib.datastores import metadata
from lib.datastores.metadata import MAX_BYTES, MAX_DEPTH, MetadataError, checked
from lib.datastores.studies import SafeDatastore
from tests.helpers.app_helpers import SHAPE, write_nifti


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


BAD = {
    "finite": {"x": [1.0, float("nan")]},
    "finite number": {"x": {"y": float("-inf")}},
    "levels": nested(MAX_DEPTH + 1),
    "nested more": nested(100_000),
    "surrogate": {"x": "\ud800"},
    "half of": {"\udfff": 1},
    "64 bits": {"x": 2**63},
    "at most": {"x": "y" * MAX_BYTES},
    "JSON object": [1],
    "not a text": {1: 2},
}


@pytest.mark.parametrize("reason", BAD)
def test_what_json_cannot_hold_is_rejected_with_the_reason(reason: str) -> None:
    with pytest.raises(MetadataError, match=reason):
        checked(BAD[reason])


def test_plain_json_is_copied_and_nothing_is_an_empty_object() -> None:
    info = {"a": [1, 2.5, None, True, "ü"], "b": nested(MAX_DEPTH - 2)}
    assert checked(info) == info
    assert checked(info)["a"] is not info["a"]
    assert checked(None) == checked({}) == {}


@pytest.mark.parametrize("reason", [reason for reason in BAD if reason != "at most"])
def test_the_datastore_answers_400_and_stores_nothing(tmp_path: Path, reason: str) -> None:
    write_nifti(tmp_path / "studies" / "mr.nii.gz") if (tmp_path / "studies").mkdir() is None else None
    store = SafeDatastore(str(tmp_path / "studies"), extensions=["*.nii.gz"])
    label = str(write_nifti(tmp_path / "label.nii.gz", np.ones(SHAPE, np.uint8)))
    store.save_label("mr", label, "final", {})
    index = (tmp_path / "studies" / "datastore_v2.json").read_bytes()
    for action in (
        lambda: store.save_label("mr", label, "final", BAD[reason]),
        lambda: store.add_image("new", str(tmp_path / "studies" / "mr.nii.gz"), BAD[reason]),
        lambda: store.update_image_info("mr", BAD[reason]),
        lambda: store.update_label_info("mr", "final", BAD[reason]),
    ):
        with pytest.raises(HTTPException, match=reason) as caught:
            action()
        assert caught.value.status_code == 400
    assert (tmp_path / "studies" / "datastore_v2.json").read_bytes() == index


def test_a_record_takes_a_few_hundred_kilobytes_at_most() -> None:
    assert MAX_BYTES <= 2**18
    assert checked({"x": "y" * (MAX_BYTES - 100)})
    with pytest.raises(MetadataError, match="at most 262144 are allowed"):
        checked({"x": "y" * 2**18})


def test_large_records_do_not_make_a_large_index_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "studies").mkdir()
    write_nifti(tmp_path / "studies" / "mr.nii.gz")
    write_nifti(tmp_path / "studies" / "ct.nii.gz")
    store = SafeDatastore(str(tmp_path / "studies"), extensions=["*.nii.gz"])
    monkeypatch.setattr(metadata, "MAX_INDEX_BYTES", 3 * MAX_BYTES)
    label, large = str(write_nifti(tmp_path / "label.nii.gz", np.ones(SHAPE, np.uint8))), {"x": "y" * (MAX_BYTES - 100)}
    for number in range(2):
        store.save_label("mr", label, f"tag{number}", large)
    for action in (
        lambda: store.save_label("mr", label, "tag2", large),
        lambda: store.update_image_info("mr", large),
    ):
        with pytest.raises(HTTPException, match="records of all images together") as caught:
            action()
        assert caught.value.status_code == 507
    store.save_label("ct", label, "final", {"by": "me"})
    monkeypatch.setattr(metadata, "MAX_INDEX_BYTES", 0)
    store.remove_label("mr", "tag0")
