"""The benchmark: this network and the plain formulation, measured in turns, side by side."""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from sam3d_label.benchmark.worker import Job, Task
from sam3d_label.errors import Sam3dError
from sam3d_label.network import PRESETS, Config

CHEAP_SECONDS = 10.0
"""A plain click under this is measured `ROUNDS` times, one above it once."""

ROUNDS = 3


def run(preset: str, device: str, *, console: Console) -> dict[str, Any]:
    """Measure a preset, print a table, return its figures.

    Each measurement runs in a fresh interpreter. The two formulations take turns, so that a machine that
    slows down slows both. Weights are random: time and memory do not depend on them.

    Args:
        preset: A name of `PRESETS`.
        device: As torch names it: cpu, cuda, cuda:1.
        console: Where to print.

    Returns:
        `preset`, `device`, `processor`, `threads`, `torch`; under `network` and `plain` the seconds of the
        first and the next click, the peak memory and, within it, the `baseline_bytes` held before the first
        click; under `training` seconds, peak memory and precision of a step; under `ratios` the comparison.

    Raises:
        Sam3dError: The machine has not enough memory.
    """
    console.print(f"{preset} on {device}, random weights; each measurement in a separate process")
    with console.status("starting") as status:
        figures = compare(PRESETS[preset], device, progress=status.update)
    machine = {"preset": preset, "device": device, "processor": processor(device), "torch": torch.__version__}
    figures = machine | figures
    console.print(table(figures))
    console.print(
        "Peak memory is that of the whole process; 'of it at rest' is libraries, weights and the crop.\n"
        if device == "cpu"
        else "Peak memory is that of tensors on the device; 'of it at rest' is weights and the crop.\n",
        f"Largest difference between the two logits: {figures['largest_difference']:.1e}.",
        highlight=False,
    )
    return figures


def compare(config: Config, device: str, *, progress: Callable[[str], object]) -> dict[str, Any]:
    """Return the figures of a network of these sizes, as `run` does, and report each step to `progress`."""

    def measured(task: Task) -> dict[str, Any]:
        progress(f"measuring {task}")
        return in_fresh_process(Job(task, config, device))

    network, plain = [measured("clicks")], [measured("plain clicks")]
    rounds = ROUNDS if plain[0]["first_click_s"] < CHEAP_SECONDS else 1
    for _ in range(1, rounds):
        network.append(measured("clicks"))
        plain.append(measured("plain clicks"))
    network.append(measured("clicks"))
    training = measured("training")
    difference = max(abs(a - b) for a, b in zip(network[0]["logit"], plain[0]["logit"], strict=True))
    figures = {"network": summary(network), "plain": summary(plain), "training": training}
    threads = training.pop("threads")
    return figures | {"ratios": ratios(figures), "largest_difference": difference, "threads": threads}


def in_fresh_process(job: Job) -> dict[str, Any]:
    """Do a job in a new interpreter.

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
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return figures
    if done.returncode == -signal.SIGKILL or "OutOfMemoryError" in done.stderr or "not enough memory" in done.stderr:
        raise Sam3dError(f"measuring {job.task} needs more memory than {job.device} has; take a smaller preset")
    raise RuntimeError(f"measuring {job.task} failed:\n{done.stderr}")


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median time and the largest memory over several processes."""
    times = {key: statistics.median(figures[key] for figures in rounds) for key in ("first_click_s", "next_click_s")}
    memory = {key: max(figures[key] for figures in rounds) for key in ("peak_bytes", "baseline_bytes")}
    return times | memory | {"rounds": len(rounds)}


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """Return how much faster and how much smaller than the plain formulation."""
    network, plain = figures["network"], figures["plain"]
    return {
        "first_click_faster": plain["first_click_s"] / network["first_click_s"],
        "next_click_faster": plain["next_click_s"] / network["next_click_s"],
        "peak_memory_share": network["peak_bytes"] / plain["peak_bytes"],
    }


def table(figures: dict[str, Any]) -> Table:
    """Return the figures for people."""
    network, plain, training, ratio = (figures[key] for key in ("network", "plain", "training", "ratios"))
    shown = Table(title=f"{figures['processor']}, {figures['threads']} threads, torch {figures['torch']}")
    for column in ("", "this network", "plain formulation", ""):
        shown.add_column(column, justify="left" if not shown.columns else "right")
    for label, key, faster in (
        ("first click (encode, decode)", "first_click_s", "first_click_faster"),
        ("next click (decode)", "next_click_s", "next_click_faster"),
    ):
        shown.add_row(label, seconds(network[key]), seconds(plain[key]), f"{ratio[faster]:.1f} × faster")
    share = f"{100 * ratio['peak_memory_share']:.0f} % of it"
    shown.add_row("peak memory", gigabytes(network["peak_bytes"]), gigabytes(plain["peak_bytes"]), share)
    shown.add_row("  of it at rest", gigabytes(network["baseline_bytes"]), gigabytes(plain["baseline_bytes"]), "")
    shown.add_section()
    shown.add_row(f"training step ({training['precision']})", seconds(training["step_s"]), "", "")
    shown.add_row("peak memory in training", gigabytes(training["peak_bytes"]), "", "")
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
