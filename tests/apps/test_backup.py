"""Backup and restore as the how-to describes them: a copy under the folder's lock, while a server saves labels."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lib.datastores.studies import SafeDatastore
from sam3d_label.model_update.split_ledger import Ledger
from sam3d_label.model_update.versions import Versions
from sam3d_label.studies.click_log import ClickLog, LoggedRequest, now, read_log
from tests.helpers.app_helpers import SHAPE, write_nifti

pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock of util-linux")


def test_a_copy_under_the_lock_is_consistent_and_is_served_after_everything_was_deleted(tmp_path: Path) -> None:
    studies, model, backup = tmp_path / "studies", tmp_path / "model", tmp_path / "backup"
    studies.mkdir()
    backup.mkdir()
    images = [write_nifti(studies / f"mr{n}.nii.gz").name.removesuffix(".nii.gz") for n in range(3)]
    labels = [str(write_nifti(tmp_path / f"{n}.nii.gz", np.full(SHAPE, n, np.uint8))) for n in range(1, 5)]
    store = SafeDatastore(str(studies), extensions=["*.nii.gz"])
    versions = Versions(model / "versions")
    log = ClickLog(model / "clicks")
    begun, stop, turns = threading.Event(), threading.Event(), 0

    def work() -> None:
        nonlocal turns
        while not stop.is_set():
            for image in images:
                value = turns % 4 + 1
                store.save_label(image, labels[value - 1], "final", {"n": value})
            Ledger(studies / ".sam3d" / "ledger.json").assign({f"case {turns}": "patient"})
            log.append(LoggedRequest(at=now(), seconds=1))
            with versions.new_version() as (name, folder):
                (folder / "adapter.safetensors").write_bytes(b"weights")
                (folder / "card.json").write_text("{}")
            versions.publish(name, "gate")
            turns += 1
            begun.set()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert begun.wait(60)
        subprocess.run(["flock", studies / ".lock", "cp", "-a", studies, backup], check=True)
        subprocess.run(["flock", model / "versions" / ".lock", "cp", "-a", model, backup], check=True)
    finally:
        stop.set()
        worker.join()
    shutil.rmtree(studies)
    shutil.rmtree(model)
    subprocess.run(["cp", "-a", backup / "studies", backup / "model", tmp_path], check=True)

    restored = SafeDatastore(str(studies), extensions=["*.nii.gz"])
    assert sorted(restored.list_images()) == images
    assert restored.status()["completed"] == 3
    for image in images:
        array = np.asanyarray(nib.Nifti1Image.from_filename(restored.get_label_uri(image, "final")).dataobj)
        assert (array == restored.get_label_info(image, "final")["n"]).all()
    assert "case 0" in Ledger(studies / ".sam3d" / "ledger.json").entries
    current = versions.current()
    assert versions.history()[-1].version == current
    assert versions.path(str(current)).is_dir()
    assert read_log(model / "clicks").damaged == 0
    restored.save_label(images[0], labels[0], "final", {"n": 1})
