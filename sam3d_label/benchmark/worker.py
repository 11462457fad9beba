"""Take one measurement in a separate process, so that its peak memory is measured alone.

``python -m sam3d_label.benchmark.worker`` reads a job as JSON from standard input and writes the figures as
JSON to standard output.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import TypeAdapter
from torch import Tensor

from sam3d_label.benchmark.plain import PlainSAM3D
from sam3d_label.io import Record
from sam3d_label.network import SAM3D, Config
from sam3d_label.network.embedding import Embedding
from sam3d_label.network.precision import computes_bf16
from sam3d_label.weights.adapter import freeze_trunk

Made = TypeVar("Made")
Task = Literal["clicks", "plain clicks", "training"]
NEXT_CLICKS = 5
CLICKS_IN_TRAINING = 10
SAMPLED = 16
"""Step, in voxels, between the logits in the report; they show whether both formulations agree."""


@dataclass(frozen=True)
class Job:
    """A measurement.

    Attributes:
        task: First and next click; the same in the plain formulation; or a step of training.
        config: Sizes of the network.
        device: As torch names it.
    """

    task: Task
    config: Config
    device: str

    def to_json(self) -> str:
        """Return the job as a line of text."""
        return JOB.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> Job:
        """Return the inverse of `to_json`."""
        return JOB.validate_json(text)


JOB = TypeAdapter(Job)


class Figures(Record):
    """The result of a measurement.

    Attributes:
        baseline_bytes: Memory that was held before the measured work.
        peak_bytes: Largest memory that was held.
        threads: Threads of the network on the CPU.
    """

    baseline_bytes: int
    peak_bytes: int
    threads: int


class ClickFigures(Figures):
    """The result of a measurement of clicks.

    Attributes:
        first_click_s: Seconds of the first click.
        next_click_s: Median seconds of a further click.
        logit: A coarse grid of the logit after the first click.
    """

    first_click_s: float
    next_click_s: float
    logit: list[float]


class TrainingFigures(Figures):
    """The result of a measurement of a training step.

    Attributes:
        step_s: Seconds of the step.
        precision: Of the forward pass.
    """

    step_s: float
    precision: Literal["bf16", "fp32"]


def measure(job: Job) -> Figures:
    """Do a job; seconds and bytes.

    The weights are random, which changes no time. On an accelerator a first pass, which loads kernels, does
    not count.
    """
    torch.manual_seed(0)
    network = SAM3D(job.config).to(job.device).eval()
    crop = torch.randn(1, 1, *(job.config.crop,) * 3).to(job.device)
    points = torch.randint(0, job.config.crop, (1, CLICKS_IN_TRAINING, 3)).to(job.device)
    tasks = {"clicks": _clicks, "plain clicks": _plain_clicks, "training": _training}
    if job.device != "cpu":
        tasks[job.task](network, crop, points)
    if job.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(job.device)
    baseline = peak_memory(job.device)
    figures = tasks[job.task](network, crop, points)
    memory = {"baseline_bytes": baseline, "peak_bytes": peak_memory(job.device), "threads": torch.get_num_threads()}
    kind = TrainingFigures if job.task == "training" else ClickFigures
    return kind.model_validate({**figures, **memory})


@torch.inference_mode()
def _clicks(network: SAM3D, crop: Tensor, points: Tensor) -> dict[str, object]:
    """Encode and decode one click, then decode longer and longer lists of clicks."""
    signs = torch.ones_like(points[..., 0])
    first, (embedding, logit) = timed(crop.device, lambda: _first_click(network, crop, points[:, :1], signs[:, :1]))
    following = [
        timed(crop.device, partial(network.decode, embedding, points[:, :n], signs[:, :n]))[0]
        for n in range(2, 2 + NEXT_CLICKS)
    ]
    return {"first_click_s": first, "next_click_s": statistics.median(following), "logit": sampled(logit)}


def _first_click(network: SAM3D, crop: Tensor, points: Tensor, signs: Tensor) -> tuple[Embedding, Tensor]:
    embedding = network.encode(crop)
    return embedding, network.decode(embedding, points, signs)


@torch.inference_mode()
def _plain_clicks(network: SAM3D, crop: Tensor, points: Tensor) -> dict[str, object]:
    """Return one click in the plain formulation: the first is like every other."""
    signs = torch.ones_like(points[:, :1, 0])
    seconds, logit = timed(crop.device, lambda: PlainSAM3D(network).click(crop, points[:, :1], signs))
    return {"first_click_s": seconds, "next_click_s": seconds, "logit": sampled(logit)}


def _training(network: SAM3D, crop: Tensor, points: Tensor) -> dict[str, object]:
    """Measure forward and backward of the trained part, blocks recomputed, in bf16 if the device computes in it."""
    freeze_trunk(network.train())
    network.image_encoder.activation_checkpointing = True
    signs = torch.ones_like(points[..., 0])
    bf16 = computes_bf16(crop.device)

    def step() -> None:
        network.zero_grad()
        with torch.autocast(crop.device.type, torch.bfloat16) if bf16 else nullcontext():
            logit = network(crop, points, signs)
        torch.nn.functional.binary_cross_entropy_with_logits(logit.float(), (crop > 0).float()).backward()

    seconds, _ = timed(crop.device, step)
    return {"step_s": seconds, "precision": "bf16" if bf16 else "fp32"}


def timed(device: torch.device, work: Callable[[], Made]) -> tuple[float, Made]:
    """Return the seconds that the work took, until the device had finished, and its result."""
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def sampled(logit: Tensor) -> list[float]:
    """Return a coarse grid of a logit (1, 1, D, H, W)."""
    coarse = logit[0, 0, ::SAMPLED, ::SAMPLED, ::SAMPLED]
    return [float(value) for value in coarse.flatten()]


def peak_memory(device: str) -> int:
    """Return the largest memory held so far, bytes: on CUDA by tensors, elsewhere by this process as a whole."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss, this knows nothing of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(measure(Job.from_json(sys.stdin.read())).model_dump_json())
