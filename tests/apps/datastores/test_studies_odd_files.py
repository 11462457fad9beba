"""Pipes, devices and links in a studies folder: nothing waits for them, and no file but a volume is sent."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from lib.datastores.studies import SafeDatastore
from lib.errors import install_error_handlers
from lib.patches.monai_label import install
from tests.helpers.app_helpers import make_app, post, write_nifti

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")


def fill(folder: Path, secret: Path) -> None:
    """Put one file of each kind into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "pipe.nii.gz")
    (folder / "device.nii").symlink_to("/dev/zero")
    (folder / "secret.nii.gz").symlink_to(secret)
    (folder / "copy.nrrd").hardlink_to(secret)
    (folder / "loop.nii").symlink_to(folder / "loop.nii")
    (folder / "folder.nii").mkdir()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("root:x:0:0")
    return path


def test_images_are_volumes_only_and_a_link_to_one_is_followed(tmp_path: Path, secret: Path) -> None:
    studies = tmp_path / "studies"
    fill(studies, secret)
    write_nifti(studies / "a.nii.gz")
    (studies / "linked.nii.gz").symlink_to(write_nifti(tmp_path / "elsewhere.nii.gz"))
    store = SafeDatastore(str(studies))
    assert sorted(store.list_images()) == ["a", "linked"]


def test_the_server_sends_no_other_file(tmp_path: Path, secret: Path, weights_path: Path) -> None:
    fill(tmp_path / "studies", secret)
    api = FastAPI()
    install_error_handlers(api)
    install(make_app(tmp_path / "studies", {"weights": str(weights_path)}), api)
    with TestClient(api, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        for name in ("pipe", "device", "secret", "copy", "loop", "folder"):
            for answer in (
                client.get("/datastore/image", params={"image": name}),
                client.get("/datastore/segmentation", params={"image": name}),
                post(client, name, foreground=[[1, 1, 1]]),
            ):
                assert answer.status_code in (400, 404), name
                assert "root:" not in answer.text


def test_a_link_that_was_changed_since_the_folder_was_read_is_not_followed(
    tmp_path: Path, secret: Path, weights_path: Path
) -> None:
    studies = tmp_path / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    links = [studies / "a.nii.gz", studies / "labels" / "final" / "a.nii.gz"]
    for link in links:
        link.symlink_to(write_nifti(tmp_path / "elsewhere.nii.gz", np.ones((8, 8, 8), np.uint8)))
    api = FastAPI()
    install_error_handlers(api)
    install(make_app(studies, {"weights": str(weights_path)}), api)
    with TestClient(api, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        for path in ("/datastore/image?image=a", "/datastore/label?label=a&tag=final"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert 'filename="a.nii.gz"' in answer.headers["content-disposition"]
        assert client.get("/datastore/dataset").status_code == 200
        for link in links:
            link.unlink()
            link.symlink_to(secret)
        digest = hashlib.sha256(secret.read_bytes()).hexdigest()
        for answer in (
            client.get("/datastore/image?image=a"),
            client.get("/datastore/label?label=a&tag=final"),
            client.head(f"/datastore/image?image=a&check_sum=SHA256:{digest}"),
            client.get("/datastore/dataset"),
        ):
            assert answer.status_code == 404
            assert b"root:" not in answer.content


def test_labels_are_volumes_only(tmp_path: Path, secret: Path) -> None:
    studies = tmp_path / "studies"
    fill(studies / "labels" / "final", secret)
    names = ("pipe", "device", "secret", "copy", "loop", "folder")
    for name in names:
        write_nifti(studies / f"{name}.nii.gz")
    store = SafeDatastore(str(studies))
    assert sorted(store.list_images()) == sorted(names)
    assert store.get_labeled_images() == []
    for name in names:
        assert store.get_label_uri(name, "final") == ""
