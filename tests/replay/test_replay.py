"""A click log again: what is measured, what is skipped, and that nothing is lost or done twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sam3d_label.cli.app import app
from sam3d_label.masks import dice
from sam3d_label.model_update.versions import Versions
from sam3d_label.replay.request import Replayer
from sam3d_label.segmentation.prompts import Box, Click, Prompts
from sam3d_label.segmentation.segmenter import Segmenter
from sam3d_label.studies.click_log import ClickLog, LoggedPrompts, LoggedRequest
from sam3d_label.studies.folder import StoredFile, Studies, StudyImage
from sam3d_label.weights import open_weights
from sam3d_label.weights.adapter import save_whole

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (20, 18, 12)
AFFINE = np.diag([1.0, 1.5, 3.0, 1.0])
CENTRE = (10, 9, 6)
SECONDS = 180
TIMES = ("seconds", "at", "served_seconds")


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def image(seed: int) -> np.ndarray:
    distance = np.linalg.norm(np.indices(SHAPE) - np.reshape(CENTRE, (3, 1, 1, 1)), axis=0)
    return (np.random.default_rng(seed).normal(100, 5, SHAPE) + 80 * (distance < 4)).astype(np.float32)


def label(value: int = 1) -> np.ndarray:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[7:14, 6:13, 4:9] = value
    return drawn


def request(name: str | None, *drawn: Click | Box, **more) -> LoggedRequest:
    given = {"at": "2026-01-02T03:04:05.678+00:00", "model": "sam3d", "label": "tumor", "seconds": 0.5}
    prompts = LoggedPrompts.of(Prompts.of(drawn or [Click(CENTRE)]))
    return LoggedRequest(image=name, **{**given, "prompts": prompts, **more})


def version_of(folder: Path, weights, version: str) -> Path:
    save_whole(weights.model, folder / "adapter.safetensors")
    weights.card.model_copy(update={"version": version}).write(folder / "card.json")
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """Threads cost a small network more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path, small_weights):
    """studies/ with three images, two of them labelled, and small weights in w/ and in an app's versions."""
    studies = Studies(tmp_path / "studies")
    for number, name in enumerate("abc"):
        write(studies.folder / f"{name}.nii.gz", image(number))
    write(studies.folder / "labels/final/a.nii.gz", label())
    write(studies.folder / "labels/final/b.nii.gz", label(3))
    with studies.changing() as listing:
        info = {"label_info": [{"name": "tumor", "idx": 3}]}
        listing.objects["b"] = StudyImage(
            image=StoredFile(ext=".nii.gz"), labels={"final": StoredFile(ext=".nii.gz", info=info)}
        )
    with Versions(tmp_path / "model" / "versions").new_version() as (version, folder):
        version_of(folder, small_weights, version)
    version_of(tmp_path / "w", small_weights, "small")
    return tmp_path


def logged(data: Path, *requests: LoggedRequest) -> None:
    log = ClickLog(data / "model" / "clicks")
    for each in requests:
        log.append(each)


def served(data: Path, name: str, *drawn: Click | Box) -> LoggedRequest:
    """A request as the version in the model folder would have answered it."""
    weights = open_weights(data / "model/versions/0001")
    result = Segmenter.open(data / f"studies/{name}.nii.gz", str(data / "w")).segment(list(drawn))
    return request(name, *drawn, version=weights.version, mask=result.digest, voxels=result.voxels)


def command(data: Path, *more: object, out: str = "out") -> list[str]:
    given = ["replay", data / "model", data / "studies", data / out, "--weights", data / "w", *more]
    return [str(argument) for argument in given]


def run(data: Path, *more: object, out: str = "out"):
    return CliRunner().invoke(app, command(data, *more, out=out), env={"COLUMNS": "160"})


def replayed(data: Path, *more: object, out: str = "out") -> list[dict[str, str]]:
    result = run(data, *more, out=out)
    assert result.exit_code == 0, result.output
    return table(data / out)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "requests.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def test_a_request_is_measured_against_the_saved_label(data):
    drawn = [Click(CENTRE), Click((1, 1, 1), positive=False)]
    logged(data, served(data, "a", *drawn), request("b", Click(CENTRE)))
    first, second = replayed(data)
    result = Segmenter.open(data / "studies/a.nii.gz", str(data / "w")).segment(drawn)
    assert float(first["dice"]) == pytest.approx(dice(result.mask > 0, label() > 0), abs=1e-6)
    assert (first["inside"], first["outside"], first["boxes"]) == ("1", "1", "0")
    assert (first["version"], first["served_version"], first["same_mask"]) == ("small", "0001", "1")
    assert first["voxels"] == first["served_voxels"] == str(result.voxels)
    assert second["dice"] != ""
    assert second["same_mask"] == second["served_voxels"] == ""
    told = summary(data / "out")
    assert (told["requests"], told["done"], told["complete"], told["measured"]) == (2, 2, True, 2)
    assert told["dice"] == pytest.approx(np.mean([float(row["dice"]) for row in (first, second)]), abs=1e-6)
    assert told["by_clicks"].keys() == {"1", "2"}
    assert told["same_mask_share"] == 1


def test_what_cannot_be_replayed_is_skipped_with_a_reason(data):
    write(data / "studies/flat.nii.gz", image(0)[:, :, 0])
    reasons = {
        request(None): "there was no such image",
        request("a", model=None): "there was no such model",
        request("a", model="deepedit"): "the model deepedit is not known here",
        request("a", prompts=None): "its prompts could not be read",
        request("a", result="uncertainty"): "it asked for uncertainty, not for a mask",
        request("session-0123456789ab"): "the image of a session is not kept",
        request("gone"): "the studies hold no such image",
        request("a", prompts=LoggedPrompts()): "nothing marks the target",
        request("a", Click((99, 0, 0))): "is outside the volume",
        request("a", Box((50, 50, 50), (60, 60, 60))): "is outside the volume",
        request("a", prompts=LoggedPrompts(), model="sam3d_auto"): "have not learned to segment without a prompt",
        request("flat"): "flat.nii.gz",
    }
    logged(data, *reasons, request("a"))
    rows = replayed(data)
    for row, reason in zip(rows, reasons.values(), strict=False):
        assert reason in row["skipped"]
        assert row["dice"] == row["version"] == ""
        assert str(data) not in row["skipped"]
    assert rows[-1]["skipped"] == ""
    told = summary(data / "out")
    assert told["replayed"] == 1
    assert sum(told["skipped"].values()) == len(reasons)


def test_a_request_without_a_truth_is_replayed_and_noted(data):
    logged(data, request("c"), request("a", label="cyst"), request("b", label=None), request("a"))
    write(data / "studies/labels/final/c.nii.gz", label(), 2 * AFFINE)
    rows = replayed(data, "--labels", "tumor")
    assert "its label cannot be used" in rows[0]["note"]
    assert rows[1]["note"] == "no cyst is drawn on the image"
    assert rows[2]["note"] == "it was for a label that the app did not have"
    assert [bool(row["voxels"]) for row in rows] == [True] * 4
    assert [bool(row["dice"]) for row in rows] == [False, False, False, True]
    others = replayed(data, "--tag", "original", out="original")
    assert {row["note"] for row in others} == {"the image has no label under original"}
    assert summary(data / "original")["dice"] is None


def test_a_label_without_names_needs_the_apps_when_the_log_has_several(data):
    logged(data, request("a"), request("a", label="cyst"))
    assert all("its label cannot be used" in row["note"] for row in replayed(data))
    rows = replayed(data, "--labels", "tumor,cyst", out="named")
    assert [bool(row["dice"]) for row in rows] == [True, False]


def test_a_box_is_cut_to_the_volume_as_the_server_does(data):
    logged(data, request("a", Box((-3, 5, 3), (14, 13, 99))))
    (row,) = replayed(data)
    assert (row["skipped"], row["boxes"]) == ("", "1")
    assert summary(data / "out")["by_clicks"].keys() == {"box"}


def test_masks_are_compared_with_those_of_the_version_that_served(data):
    drawn = Click(CENTRE)
    logged(data, served(data, "a", drawn), served(data, "b", drawn), request("c", drawn, version="9", mask="00"))
    write(data / "studies/b.nii.gz", image(7))
    other = open_weights(data / "w")
    other.model.load_state_dict({name: 1.2 * tensor for name, tensor in other.model.state_dict().items()})
    version_of(data / "w", other, "changed")
    first, second, third = replayed(data, "--model-dir", data / "model")
    assert (first["same_mask"], first["note"]) == ("0", "")
    assert 0 < float(first["agreement"]) < 1
    assert "gives a mask other than it was served" in second["note"]
    assert third["agreement"] == ""
    assert summary(data / "out")["compared"] == 2


def test_a_second_call_goes_on_where_the_first_was_killed(data, monkeypatch):
    logged(data, *(request(name, Click((10, 9, k))) for name in "abc" for k in (5, 6)))
    whole = replayed(data, out="whole")
    rows = Replayer.rows
    done: list[int] = []

    def dies_after_three(self, job):
        for row in rows(self, job):
            if len(done) == 3:
                raise KeyboardInterrupt
            done.append(row.number)
            yield row

    monkeypatch.setattr(Replayer, "rows", dies_after_three)
    assert run(data).exit_code != 0
    (file,) = (data / "out/rows").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    monkeypatch.setattr(Replayer, "rows", lambda self, job: (done.append(row.number) or row for row in rows(self, job)))
    assert without_times(replayed(data)) == without_times(whole)
    assert done == [1, 2, 3, 3, 4, 5, 6]


def test_a_log_that_has_grown_is_reported_and_the_replay_stays_what_it_was(data):
    logged(data, request("a"), request("b"))
    replayed(data, "--shard", "1/2")
    logged(data, request("c"))
    result = run(data, "--shard", "2/2")
    assert "1 requests are newer than this replay" in result.stderr
    assert len(table(data / "out")) == 2


def test_shares_in_one_folder_add_up(data):
    logged(data, *(request(name, Click((10, 9, k))) for name in "abc" for k in (5, 6)))
    whole = replayed(data, out="whole")
    first = run(data, "--shard", "1/2")
    assert "replayed 4 of 6 requests, 1/2 by --shard" in first.stdout
    assert "2 of 6 requests are left" in first.stdout
    assert summary(data / "out")["complete"] is False
    second = run(data, "--shard", "2/2")
    assert "replayed 2 of 6 requests" in second.stdout
    assert "left" not in second.stdout
    assert without_times(table(data / "out")) == without_times(whole)
    assert summary(data / "out")["complete"] is True


def test_under_torchrun_each_process_does_its_share(data, monkeypatch):
    logged(data, *(request(name, Click((10, 9, k))) for name in "abc" for k in (5, 6)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, share in enumerate(("replayed 4 of 6 requests, 1/2 by RANK", "replayed 2 of 6 requests, 2/2 by RANK")):
        monkeypatch.setenv("RANK", str(rank))
        assert share in run(data).stdout
    assert summary(data / "out")["complete"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--tag", "original"), "holds a replay with another tag"),
        (("--labels", "a,b"), "holds a replay with another labels"),
        (("--weights", "tiny"), "holds a replay with another weights"),
        (("--workers", "0"), "Invalid value for '--workers'"),
        (("--shard", "3/2"), "--shard 3/2"),
        (("--weights", "missing"), "missing"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(data, change, message):
    logged(data, request("a"))
    replayed(data)
    result = run(data, *change)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]


def test_another_log_is_refused(data):
    logged(data, request("a"))
    replayed(data)
    (data / "model/clicks/clicks-000001.jsonl").unlink()
    assert "holds no click log" in run(data).stderr
    logged(data, request("b"))
    assert "holds the replay of another log" in run(data).stderr


def test_another_replay_is_replaced_when_that_is_asked_for(data):
    logged(data, request("a"), request("b"))
    replayed(data)
    (data / "out/notes.txt").write_text("of the user")
    (data / "model/clicks/clicks-000001.jsonl").unlink()
    logged(data, request("b"))
    assert "add --overwrite" in run(data).stderr
    assert run(data, "--overwrite").exit_code == 0
    assert [row["image"] for row in table(data / "out")] == ["b"]
    assert (data / "out/notes.txt").read_text() == "of the user"
    assert "one of several shards" in run(data, "--overwrite", "--shard", "1/2").stderr


@pytest.mark.parametrize("name", ["summary.json", "requests.csv", "log.jsonl", "rows"])
def test_a_file_of_something_else_is_named_and_kept(data, name):
    logged(data, request("a"))
    (data / "out").mkdir()
    (data / "out" / name).write_text("of an evaluation")
    for options in ((), ("--overwrite",)):
        assert f"holds {name}, which no replay has written" in run(data, *options).stderr
        assert (data / "out" / name).read_text() == "of an evaluation"


def test_a_file_among_the_rows_that_no_replay_wrote_is_kept(data):
    logged(data, request("a"))
    replayed(data)
    (data / "out/rows/notes.jsonl").write_text("of the user")
    before = (data / "out/summary.json").read_bytes()
    assert "rows holds notes.jsonl, which no replay has written" in run(data, "--overwrite").stderr
    assert (data / "out/rows/notes.jsonl").read_text() == "of the user"
    assert (data / "out/summary.json").read_bytes() == before


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_what_is_read_is_never_replaced(data, overwrite):
    logged(data, request("a"), request("b"))
    (data / "out/rows").mkdir(parents=True)
    log = (data / "model/clicks/clicks-000001.jsonl").rename(data / "out/log.jsonl")
    studies = (data / "studies").rename(data / "out/rows/studies")
    before = log.read_bytes()
    for given in ((log, data), (data / "model", studies)):
        result = CliRunner().invoke(app, ["replay", *map(str, given), str(data / "out"), *overwrite])
        assert result.exit_code == 2
        assert "is what the command reads and would replace" in result.stderr
    assert log.read_bytes() == before
    assert sorted(path.name for path in (data / "out").iterdir()) == ["log.jsonl", "rows"]


def test_without_studies_nothing_is_written(data):
    logged(data, request("a"))
    arguments = [str(data / name) for name in ("model", "nowhere", "out")]
    result = CliRunner().invoke(app, ["replay", *arguments])
    assert result.exit_code == 2
    assert "nowhere does not exist" in result.stderr
    assert not (data / "out").exists()


def test_when_nothing_can_be_replayed_it_says_why(data):
    logged(data, request("gone"), request(None))
    result = run(data)
    assert result.exit_code == 2
    assert "none of 2 requests could be replayed: the studies hold no such image" in result.stderr
    assert len(table(data / "out")) == 2


def start(arguments: list[object]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    given = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(given, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")


def children(pid: int) -> list[int]:
    """Processes that one has started."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(condition, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_killed_workers_leave_what_they_did_and_nobody_behind(data):
    logged(data, *(request(name, Click((10, 9, k % 12))) for name in "abc" for k in range(20)))
    process = start(["-m", "sam3d_label", *command(data, "--workers", 2)])
    rows = data / "out/rows"
    until(lambda: rows.is_dir() and any(file.stat().st_size for file in rows.iterdir()), process)
    started = children(process.pid)
    assert len(started) >= 2
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").is_dir() and "Z" not in state(pid) for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = replayed(data, "--workers", 2)
    assert [int(row["number"]) for row in found] == list(range(1, 61))
    lines = [line for file in rows.iterdir() for line in file.read_bytes().splitlines() if line.endswith(b"}")]
    assert len(lines) == 60


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0]
    except OSError:
        return "Z"
