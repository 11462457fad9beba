"""Any file name works from the folder to the answer, or is skipped with a reason; the same ids can be uploaded."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fastapi import HTTPException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lib.datastores.studies import SafeDatastore
from tests.helpers.app_helpers import SHAPE, write_nifti

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
ODD = (
    "-x",
    "--help",
    "CON",
    "nul.txt",
    "100%",
    "a%20b",
    "a#b?c&d=e",
    "a;b",
    "$(x)",
    "`x`",
    "a'b\"c",
    "[a]*?",
    "{0}",
    "~",
    "a b",
    "caf\u00e9",
    "cafe\u0301",
    "\u80ba",
    "\u202egpj",
    "a\nb",
    "a\tb",
    "x.nii",
    "a.",
    "..",
    "a\\b",
    "x" * 201,
    "\u80ba" * 67,
)


def with_examples(test):
    for name in ODD:
        test = example(name)(test)
    return test


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """The content of an image, and the path of a label for it."""
    folder = tmp_path_factory.mktemp("files")
    label = write_nifti(folder / "label.nii.gz", np.ones(SHAPE, np.uint8))
    return write_nifti(folder / "image.nii.gz").read_bytes(), str(label)


@with_examples
@given(name=names)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_of_a_file_is_served_or_skipped_with_a_reason(files: tuple[bytes, str], name: str) -> None:
    image, label = files
    with tempfile.TemporaryDirectory() as folder:
        try:
            Path(folder, f"{name}.nii.gz").write_bytes(image)
        except OSError:
            return  # no file can have this name here
        store = SafeDatastore(folder, extensions=["*.nii.gz"])
        if not store.list_images():
            assert store.skipped[f"{name}.nii.gz"]
            return
        assert store.list_images() == [name]
        assert store.save_label(name, label, "final", {}) == name
        assert os.path.isfile(store.get_label_uri(name, "final"))
        again = SafeDatastore(folder, extensions=["*.nii.gz"])
        assert again.get_labeled_images() == [name]
        again.remove_image(name)
        assert not list(Path(folder).glob("*.nii.gz"))


@with_examples
@given(name=names)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_id_can_be_uploaded_or_is_a_bad_request(files: tuple[bytes, str], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as uploads:
        upload = Path(uploads, "upload.nii.gz")
        upload.write_bytes(files[0])
        store = SafeDatastore(folder, extensions=["*.nii.gz"])
        rejected = None
        try:
            store.add_image(name, str(upload), {})
        except HTTPException as error:
            rejected = error
        if rejected:
            assert rejected.status_code == 400
            assert "cannot be an image id" in rejected.detail
            assert not store.list_images()
            return
        assert SafeDatastore(folder, extensions=["*.nii.gz"]).list_images() == [name]
