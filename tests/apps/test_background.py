"""What a server has begun ends with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import psutil
import pytest

from tests.helpers.app_helpers import serve, wait, write_nifti

pytestmark = pytest.mark.slow


def test_a_training_ends_with_its_server_and_loses_no_epoch(weights_path: Path, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    image = nib.Nifti1Image.from_filename(write_nifti(studies / "a.nii.gz"))
    inside = np.asanyarray(image.dataobj) > 140
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), image.affine), tmp_path / "label.nii.gz")
    arguments = ["--studies", str(studies), "--conf", "weights", str(weights_path)]
    with serve(arguments, tmp_path) as url:
        (server,) = (p for p in psutil.Process().children() if url.rpartition(":")[2] in p.cmdline())
        with (tmp_path / "label.nii.gz").open("rb") as file:
            put = httpx.put(f"{url}/datastore/label", params={"image": "a", "tag": "final"}, files={"label": file})
        assert put.status_code == 200, put.text
        assert httpx.post(f"{url}/train/sam3d", json={"max_epochs": 10000}).status_code == 200
        wait(lambda: any((tmp_path / "model").rglob("checkpoint.pt")), "no epoch was done", 120)
        (checkpoint,) = (tmp_path / "model").rglob("checkpoint.pt")
        begun = server.children(recursive=True)
        assert any("train" in process.cmdline() for process in begun)

        os.kill(server.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(begun, timeout=20)
        assert not alive
        assert checkpoint.is_file()
