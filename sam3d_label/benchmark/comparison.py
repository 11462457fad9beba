"""The benchmark: this network and the plain formulation, measured in turns, side by side."""

from __future__ import annotations

import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from sam3d_label.benchmark.worker import ClickFigures, Figures, Job, Task, TrainingFigures
from sam3d_label.errors import Sam3dError
from sam3d_label.io import Record, RecordPart
from sam3d_label.network import PRESETS

FiguresType = TypeVar("FiguresType", bound=Figures)
CHEAP_SECONDS = 10.0
"""A plain click under this is measured `ROUNDS` times, one above it once."""

ROUNDS = 3


class Rounds(RecordPart):
    """Clicks over several measurements: median times and the largest memory.

    Attributes:
        first_click_s: Seconds of the first click.
        next_click_s: Seconds of a further click.
        peak_bytes: Largest memory that was held.
        baseline_bytes: Memory that was held before the first click.
        rounds: Number of measurements.
    """

    first_click_s: float
    next_click_s: float
    peak_bytes: int
    baseline_bytes: int
    rounds: int

    @classmethod
    def of(cls, measured: Sequence[ClickFigures]) -> Rounds:
        """Return the summary of several measurements."""
        return cls(
            first_click_s=statistics.median(each.first_click_s for each in measured),
            next_click_s=statistics.median(each.next_click_s for each in measured),
            peak_bytes=max(each.peak_bytes for each in measured),
            baseline_bytes=max(each.baseline_bytes for each in measured),
            rounds=len(measured),
        )


class Step(RecordPart):
    """A training step: its seconds, the memory and the precision of the forward pass."""

    step_s: float
    precision: Literal["bf16", "fp32"]
    baseline_bytes: int
    peak_bytes: int


class Ratios(RecordPart):
    """How much faster than the plain formulation, and what share of its memory."""

    first_click_faster: float
    next_click_faster: float
    peak_memory_share: float

    @classmethod
    def of(cls, network: Rounds, plain: Rounds) -> Ratios:
        """Return the comparison of the network with the plain formulation."""
        return cls(
            first_click_faster=plain.first_click_s / network.first_click_s,
            next_click_faster=plain.next_click_s / network.next_click_s,
            peak_memory_share=network.peak_bytes / plain.peak_bytes,
        )


class Comparison(Record):
    """The result of the benchmark.

    Attributes:
        preset: Name of the sizes of the network.
        device: As torch names it.
        processor: Name of the processor.
        torch: Version of torch.
        network: Clicks on the network.
        plain: Clicks on the plain formulation.
        training: A training step of the network.
        ratios: Network and plain formulation compared.
        largest_difference: Between the logits of the two.
        threads: Of the network on the CPU.
    """

    preset: str
    device: str
    processor: str
    torch: str
    network: Rounds
    plain: Rounds
    training: Step
    ratios: Ratios
    largest_difference: float
    threads: int


def run(preset: str, device: str, *, console: Console) -> Comparison:
    """Measure a preset, print a table, return its figures.

    Each measurement runs in a fresh interpreter. The two formulations take turns, so that a machine that
    slows down slows both. Weights are random: time and memory do not depend on them.

    Args:
        preset: A name of `PRESETS`.
        device: As torch names it: cpu, cuda, cuda:1.
        console: Where to print.

    Raises:
        Sam3dError: The machine has not enough memory.
    """
    console.print(f"{preset} on {device}, random weights; each measurement in a separate process")
    with console.status("starting") as status:
        figures = compare(preset, device, progress=status.update)
    console.print(table(figures))
    console.print(
        "Peak memory is that of the whole process; 'of it at rest' is libraries, weights and the crop.\n"
        if device == "cpu"
        else "Peak memory is that of tensors on the device; 'of it at rest' is weights and the crop.\n",
        f"Largest difference between the two logits: {figures.largest_difference:.1e}.",
        highlight=False,
    )
    return figures


def compare(preset: str, device: str, *, progress: Callable[[str], object]) -> Comparison:
    """Return the figures of a preset, as `run` does, and report each step to `progress`."""

    def clicks(task: Task) -> ClickFigures:
        progress(f"measuring {task}")
        return in_fresh_process(Job(task, PRESETS[preset], device), ClickFigures)

    network, plain = [clicks("clicks")], [clicks("plain clicks")]
    rounds = ROUNDS if plain[0].first_click_s < CHEAP_SECONDS else 1
    for _ in range(1, rounds):
        network.append(clicks("clicks"))
        plain.append(clicks("plain clicks"))
    network.append(clicks("clicks"))
    progress("measuring training")
    training = in_fresh_process(Job("training", PRESETS[preset], device), TrainingFigures)
    in_all, plain_in_all = Rounds.of(network), Rounds.of(plain)
    return Comparison(
        preset=preset,
        device=device,
        processor=processor(device),
        torch=torch.__version__,
        network=in_all,
        plain=plain_in_all,
        training=Step.model_validate(training.model_dump()),
        ratios=Ratios.of(in_all, plain_in_all),
        largest_difference=max(abs(a - b) for a, b in zip(network[0].logit, plain[0].logit, strict=True)),
        threads=training.threads,
    )


def in_fresh_process(job: Job, kind: type[FiguresType]) -> FiguresType:
    """Do a job in a new interpreter.

    Args:
        job: What to measure.
        kind: Class of its figures.

    Raises:
        Sam3dError: It ran out of memory.
        RuntimeError: It failed otherwise.
    """
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "sam3d_label.benchmark.worker"],
        input=job.to_json(),
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": path},
    )
    if done.returncode == 0:
        return kind.model_validate_json(done.stdout.splitlines()[-1])
    if done.returncode == -signal.SIGKILL or "OutOfMemoryError" in done.stderr or "not enough memory" in done.stderr:
        raise Sam3dError(f"measuring {job.task} needs more memory than {job.device} has; take a smaller preset")
    raise RuntimeError(f"measuring {job.task} failed:\n{done.stderr}")


def table(figures: Comparison) -> Table:
    """Return the figures for people."""
    network, plain, training, ratios = figures.network, figures.plain, figures.training, figures.ratios
    shown = Table(title=f"{figures.processor}, {figures.threads} threads, torch {figures.torch}")
    for column in ("", "this network", "plain formulation", ""):
        shown.add_column(column, justify="left" if not shown.columns else "right")
    for label, ours, theirs, faster in (
        ("first click (encode, decode)", network.first_click_s, plain.first_click_s, ratios.first_click_faster),
        ("next click (decode)", network.next_click_s, plain.next_click_s, ratios.next_click_faster),
    ):
        shown.add_row(label, seconds(ours), seconds(theirs), f"{faster:.1f} × faster")
    share = f"{100 * ratios.peak_memory_share:.0f} % of it"
    shown.add_row("peak memory", gigabytes(network.peak_bytes), gigabytes(plain.peak_bytes), share)
    shown.add_row("  of it at rest", gigabytes(network.baseline_bytes), gigabytes(plain.baseline_bytes), "")
    shown.add_section()
    shown.add_row(f"training step ({training.precision})", seconds(training.step_s), "", "")
    shown.add_row("peak memory in training", gigabytes(training.peak_bytes), "", "")
    return shown


def seconds(value: float) -> str:
    """Return a time for people."""
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 0.1 else f"{1000 * value:.1f} ms"


def gigabytes(value: int) -> str:
    """Return a size for people."""
    return f"{value / 1e9:.2f} GB"


def processor(device: str) -> str:
    """Return the name of the processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
