"""The client for batch work: its tables, and its work with a running server; then a SLURM array on the server's log."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import batch_client
import nibabel as nib
import numpy as np
import pytest
import requests

from tests.helpers.app_helpers import CENTRE, SHAPE, serve, write_nifti, write_weights

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HEADER = "image,i,j,k,inside\n"


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "clicks.csv"
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


def test_clicks_of_an_image_are_one_request(tmp_path: Path) -> None:
    found = batch_client.read_clicks(table(tmp_path, "a,1,2,3,1", "b,0,0,0,1", "a,4,5,6,0"))
    assert found == {"a": batch_client.Clicks([[1, 2, 3]], [[4, 5, 6]]), "b": batch_client.Clicks([[0, 0, 0]])}


@pytest.mark.parametrize("row", ["a,1,2,3", "a,1,2,x,1", "a,1,2,3,2", "../a,1,2,3,1", ",1,2,3,1", "a,1.5,2,3,1"])
def test_a_damaged_row_is_named(tmp_path: Path, row: str) -> None:
    with pytest.raises(ValueError, match="line 3: "):
        batch_client.read_clicks(table(tmp_path, "a,1,2,3,1", row))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks the column inside"):
        batch_client.read_clicks(table(tmp_path, header="image,i,j,k\n"))


class Answering:
    """A client whose server has the images of a table but one."""

    def __init__(self, mask: bytes, missing: str) -> None:
        self.mask, self.missing = mask, missing
        self.sent: list[str] = []

    def segment(self, image: str, clicks: batch_client.Clicks) -> bytes:
        self.sent.append(image)
        if image == self.missing:
            raise requests.HTTPError("404: no such image")
        return self.mask


def test_a_rejected_image_does_not_stop_the_others_and_is_tried_again(tmp_path: Path) -> None:
    mask = np.zeros((4, 4, 4), np.float32)
    mask[:2] = 1
    content = write_nifti(tmp_path / "mask.nii.gz", mask, np.diag([10, 10, 10, 1.0])).read_bytes()
    clicks = {name: batch_client.Clicks([[1, 1, 1]]) for name in ("a", "b", "c")}
    out = tmp_path / "masks"
    out.mkdir()
    for client in (Answering(content, "b"), Answering(content, "")):
        rows = list(batch_client.save_masks(client, clicks, out))  # type: ignore[arg-type]  # it has the same method
        batch_client.write_summary(out, rows)
    assert client.sent == ["b"]
    assert sorted(path.name for path in out.iterdir()) == ["a.nii.gz", "b.nii.gz", "c.nii.gz", "summary.csv"]
    with (out / "summary.csv").open() as file:
        assert [(row["image"], row["millilitres"], row["error"]) for row in csv.DictReader(file)] == [
            (name, "32.00", "") for name in ("a", "b", "c")
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batch")


@pytest.fixture(scope="module")
def weights(folder: Path) -> Path:
    (folder / "weights").mkdir()
    return write_weights(folder / "weights")


@pytest.fixture(scope="module")
def server(folder: Path, weights: Path) -> Iterator[str]:
    (folder / "studies").mkdir()
    for name in ("one", "two"):
        write_nifti(folder / "studies" / f"{name}.nii.gz")
    with serve(["--studies", str(folder / "studies"), "--conf", "weights", str(weights)], folder) as url:
        yield url


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "batch_client.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_masks_of_a_running_server_and_a_replay_of_them(server: str, folder: Path, weights: Path) -> None:
    click = ",".join(map(str, CENTRE))
    clicks = table(folder, f"one,{click},1", f"two,{click},1", "two,1,1,1,0", f"three,{click},1")
    done = run(server, clicks, folder / "masks")
    assert done.returncode == 1, done.stderr
    assert "three: 404: " in done.stdout
    for name in ("one", "two"):
        mask = np.asarray(nib.Nifti1Image.from_filename(folder / "masks" / f"{name}.nii.gz").dataobj)
        assert mask.shape == SHAPE
        assert mask[tuple(CENTRE)] == 1

    for number in ("1", "2"):
        array = {"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
        run_task(
            "slurm_replay.sh",
            [folder / "model", folder / "studies", folder / "replayed", "--weights", weights],
            {**array, "SLURM_ARRAY_TASK_STEP": "1"},
        )
    summary = json.loads((folder / "replayed" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["requests"], summary["replayed"]) == (3, 2)


def run_task(script: str, arguments: Sequence[Path | str], array: dict[str, str]) -> None:
    """Run a task of an array with the variables that SLURM sets."""
    environment = {**os.environ, **array, "SLURM_CPUS_PER_TASK": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(EXAMPLES.parent)
    subprocess.run(["bash", EXAMPLES / script, *arguments], check=True, env=environment)


@pytest.mark.slow
def test_an_array_evaluates_each_case_once(folder: Path, weights: Path) -> None:
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for name in ("a", "b", "c"):
        image = np.asarray(nib.Nifti1Image.from_filename(write_nifti(folder / "images" / f"{name}.nii.gz")).dataobj)
        write_nifti(folder / "labels" / f"{name}.nii.gz", (image > 140).astype(np.float32))
    command = list(map(str, [folder / "images", folder / "labels", folder / "out"]))
    command += ["--weights", str(weights), "--clicks", "1,2"]
    for job, tasks in (("7", 3), ("8", 2)):  # a smaller array after a larger one, into the same folder
        for number in range(tasks):
            array = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_COUNT": str(tasks)}
            task = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_MIN": "0"}
            run_task("slurm_evaluate.sh", command, {**array, **task})
        with (folder / "out" / "cases.csv").open() as file:
            rows = [(row["case"], row["clicks"]) for row in csv.DictReader(file)]
        assert sorted(rows) == [(name, clicks) for name in ("a", "b", "c") for clicks in ("1", "2")]
