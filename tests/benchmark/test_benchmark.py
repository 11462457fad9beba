"""The benchmark's own path, on a network that takes no time."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from sam3d_label import benchmark
from sam3d_label.benchmark import comparison, worker
from sam3d_label.benchmark.comparison import Rounds
from sam3d_label.benchmark.worker import ClickFigures, Job
from sam3d_label.errors import Sam3dError
from sam3d_label.network import PRESETS
from tests.helpers.networks import SMALL

ATTENTIVE = replace(SMALL, global_blocks=(1,))
"""With a block that looks everywhere, as SAM has some."""


def test_a_job_survives_the_pipe() -> None:
    job = Job("training", ATTENTIVE, "cpu")
    assert Job.from_json(job.to_json()) == job


def test_both_formulations_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "small", ATTENTIVE)
    monkeypatch.setattr(comparison, "ROUNDS", 1)
    printed = io.StringIO()
    figures = benchmark.run("small", "cpu", console=Console(file=printed, width=120))
    for clicks in (figures.network, figures.plain):
        assert clicks.first_click_s >= clicks.next_click_s > 0
        assert clicks.peak_bytes >= clicks.baseline_bytes > 0
    assert figures.plain.first_click_s == figures.plain.next_click_s
    assert figures.training.step_s > 0
    expected = figures.plain.next_click_s / figures.network.next_click_s
    assert figures.ratios.next_click_faster == pytest.approx(expected)
    assert figures.largest_difference < 1e-3
    for text in ("first click", "next click", "peak memory", "training step", "× faster"):
        assert text in printed.getvalue()


def test_rounds_are_summed_up_by_median_and_maximum() -> None:
    rounds = [
        ClickFigures(
            first_click_s=seconds,
            next_click_s=seconds / 2,
            peak_bytes=int(10 * seconds),
            baseline_bytes=5,
            threads=1,
            logit=[],
        )
        for seconds in (2.0, 9.0, 4.0)
    ]
    expected = Rounds(first_click_s=4.0, next_click_s=2.0, peak_bytes=90, baseline_bytes=5, rounds=3)
    assert Rounds.of(rounds) == expected


def test_peak_memory_remembers_what_was_freed() -> None:
    before = worker.peak_memory("cpu")
    size = before + 200_000_000
    torch.ones(size // 4)
    assert worker.peak_memory("cpu") > before + size // 4


def test_failures_of_a_process_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed:
        returncode, stdout, stderr = -9, "", ""

    class Broken:
        returncode, stdout, stderr = 1, "", "Traceback: nonsense"

    job = Job("clicks", ATTENTIVE, "cpu")
    monkeypatch.setattr(comparison.subprocess, "run", lambda *_, **__: Killed)
    with pytest.raises(Sam3dError, match="needs more memory than cpu has"):
        comparison.in_fresh_process(job, ClickFigures)
    monkeypatch.setattr(comparison.subprocess, "run", lambda *_, **__: Broken)
    with pytest.raises(RuntimeError, match="nonsense"):
        comparison.in_fresh_process(job, ClickFigures)
