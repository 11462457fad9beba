"""A run in several processes: the same as in one, and an end that says why."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from sam3d_label.errors import Sam3dError
from sam3d_label.image.intensity import Percentile
from sam3d_label.training import TrainingCase, TrainSettings
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.training.launch import DONE, Message, TrainingJob, train_in_processes
from sam3d_label.training.log import EpochLog
from sam3d_label.training.run import TrainingRun

QUICK = TrainSettings(epochs=2, steps_per_epoch=1, batch=2, warmup=0, workers=0, precision="fp32", seed=1)


def test_a_job_holds_all_arguments_of_fine_tune(phantom_cases, small_weights, tmp_path):
    told = TrainingJob(
        config=small_weights.model.config,
        cases=phantom_cases,
        validation=phantom_cases[:1],
        intensity=Percentile(lower=1.0),
        settings=QUICK,
        device="cpu",
        resume=True,
        busy=tmp_path,
    )
    assert TrainingJob.model_validate_json(told.model_dump_json()) == told


@pytest.mark.parametrize("mark", ["message", "message 12ab"])
@pytest.mark.parametrize(
    "message",
    [
        Message(step=(0, 1, 2)),
        Message(epoch=EpochLog(epoch=0, loss=1.5, dice_1=math.nan, dice_3=0.5, learning_rate=1e-3, seconds=2)),
        Message(reason="no case"),
    ],
)
def test_a_message_is_read_from_its_line(message, mark):
    (line,) = [line for line in message.as_line(mark).splitlines() if line]
    read = Message.from_line(line, mark)
    assert read is not None
    assert repr(read) == repr(message)


@pytest.mark.parametrize(
    "line",
    [
        "step by step",
        "step 1 2",
        "message 34cd {}",
        "message 12ab",
        "message 12ab step 1",
        'message 12ab {"step": [1]}',
    ],
)
def test_other_output_is_no_message(line):
    assert Message.from_line(line, "message 12ab") is None


def test_output_of_a_library_does_not_break_a_training(small_weights, tmp_path, monkeypatch):
    """The processes write lines like those of a message, bytes that are no text, and a line without an end."""
    program = """
import json, sys
job = json.load(open(sys.argv[1]))
sys.stdout.buffer.write(b"step one of the library\\nepoch log of it\\n\\xff\\nended early: never\\nan unfinished line")
sys.stdout.buffer.write(("\\n" + job["mark"] + ' {"step": [0, 1, 1]}\\n').encode())
sys.exit("then it failed")
"""
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **more: popen([sys.executable, "-c", program, command[-1]], **more)
    )
    steps: list[tuple[int, int, int]] = []
    run = TrainingRun(cases=[], intensity=Percentile(), settings=QUICK)
    with pytest.raises(Sam3dError, match=r"an unfinished line \| then it failed"):
        train_in_processes(1)(small_weights.model, run, tmp_path, on_step=lambda *step: steps.append(step))
    assert steps == [(0, 1, 1)]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(phantom_cases, small_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = TrainingRun(
        cases=phantom_cases[:2], validation=phantom_cases[2:], intensity=Percentile(), settings=QUICK, device="cpu"
    )
    alone, together = copy.deepcopy(small_weights.model), copy.deepcopy(small_weights.model)
    expected = fine_tune(alone, run, tmp_path / "alone")
    seen: list[Any] = []
    steps: list[tuple[int, int, int]] = []
    report = train_in_processes(2)(
        together, run, tmp_path / "both", progress=seen.append, on_step=lambda *step: steps.append(step)
    )
    assert steps == [(0, 1, 1), (1, 1, 1)]
    assert [log.epoch for log in seen] == [0, 1]
    assert [log.loss for log in report.epochs] == pytest.approx([log.loss for log in expected.epochs], rel=1e-4)
    assert report.trained == expected.trained
    assert report.memory
    for a, b in zip(alone.parameters(), together.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_what_ends_a_run_early_is_reported(small_weights, tmp_path):
    missing = [TrainingCase(tmp_path / "lost.nii.gz", tmp_path / "lost.nii.gz")]
    run = TrainingRun(cases=missing, intensity=Percentile(), settings=QUICK)
    with pytest.raises(Sam3dError, match=r"in 1 processes ended early.*none of 1 cases can train"):
        train_in_processes(1)(small_weights.model, run, tmp_path / "out")
    assert not (tmp_path / "out" / DONE).exists()


def test_the_result_of_an_earlier_run_is_not_taken_for_this_one(small_weights, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / DONE).write_bytes(b"of an earlier run")
    monkeypatch.setattr(
        subprocess, "Popen", lambda *_, **__: pytest.fail("stop here") if (out / DONE).exists() else 1 / 0
    )
    run = TrainingRun(cases=[], intensity=Percentile(), settings=QUICK)
    with pytest.raises(ZeroDivisionError):
        train_in_processes(1)(small_weights.model, run, out)
