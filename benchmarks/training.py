"""Speed of training by stage: data, encoder, decoder, backward pass, simulated clicks, and rehearsal.

    python benchmarks/training.py [--weights tiny] [--device cpu] [--steps 20] [--batch 1] [--warm-up 3]
        [--specialise] [--precision auto] [--runs 1] [--processor-time] [--json FILE]

The settings are those of a team's update on five cases, which are phantoms; half of the crops are rehearsed, unless
`--specialise` is given, as with `reference_limit none`. Crops are prepared in this process, so that their time is seen;
in a training, worker processes prepare them in advance. The first steps are not counted. Several values of
`--precision` are measured in turn, `--runs` times each, on the same crops. On a CPU that has other work too,
`--processor-time` gives steadier figures.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple, TypeVar
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sam3d_label import open_weights
from sam3d_label.io import write_json
from sam3d_label.network import PromptableNetwork
from sam3d_label.synthetic.phantoms import write_phantoms
from sam3d_label.training import TrainSettings, simulation
from sam3d_label.training.cases import OpenedCases
from sam3d_label.training.dataset import TrainingCrops, pair_cases
from sam3d_label.training.distributed import world
from sam3d_label.training.trainer import Trainer
from sam3d_label.weights import Weights

CASES = 5
STAGES = ("data", "encode", "decode", "clicks", "backward", "teacher")
Result = TypeVar("Result")


class StageClock:
    """Adds up the seconds of stages; a stage inside another one is not counted for the outer one.

    Args:
        device: Its pending work is waited for at the begin and end of a stage.
        clock: Seconds.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._device, self._clock, self._stack = device, clock, [0.0]
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block as a stage."""
        began = self.now()
        self._stack.append(0.0)
        yield
        whole, inside = self.now() - began, self._stack.pop()
        self.seconds[name] += whole - inside
        self._stack[-1] += whole

    def timed(self, name: str, function: Callable[..., Result]) -> Callable[..., Result]:
        """Return a function whose calls count as a stage."""

        def call(*args: object, **kwargs: object) -> Result:
            with self.stage(name):
                return function(*args, **kwargs)

        return call

    def now(self) -> float:
        """Return the time after all pending work, seconds."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


@contextmanager
def stages_of(model: PromptableNetwork, clock: StageClock) -> Iterator[None]:
    """Time the stages of the training steps in the block."""
    with ExitStack() as patches:
        for owner, name, stage in (
            (TrainingCrops, "__getitem__", "data"),
            (model, "encode", "encode"),
            (model, "decode", "decode"),
            (model, "propose", "decode"),
            (simulation, "draw_click", "clicks"),
            (simulation, "target_cells", "clicks"),
            (simulation, "rough_mask", "clicks"),
            (Tensor, "backward", "backward"),
        ):
            patches.enter_context(patch.object(owner, name, clock.timed(stage, getattr(owner, name))))
        yield


@contextmanager
def stages_of_teacher(teacher: PromptableNetwork, clock: StageClock) -> Iterator[None]:
    """Time what the network before the run computes in the block."""
    with ExitStack() as patches:
        for name in ("encode", "decode", "propose"):
            patches.enter_context(patch.object(teacher, name, clock.timed("teacher", getattr(teacher, name))))
        yield


class Precision(str, Enum):
    """Values of `TrainSettings.precision`."""

    AUTO, BF16, FP32 = "auto", "bf16", "fp32"


class Speed(NamedTuple):
    """Crops per second, and the seconds of each stage for a crop."""

    crops_per_second: float
    stages: dict[str, float]


def measure(
    weights: Weights,
    device: str,
    steps: int,
    batch: int,
    *,
    warm_up: int = 3,
    keeping: bool = True,
    precision: str = "auto",
    seconds_of: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Return the speed of some steps by a clock; the weights stay as they are."""
    with tempfile.TemporaryDirectory() as folder, world(device) as processes:
        write_phantoms(Path(folder), CASES, seed=0)
        cases = pair_cases(Path(folder, "images"), Path(folder, "labels"))
        rehearsed = [replace(case, rehearsed=True) for case in cases] if keeping else []
        opened = OpenedCases([*cases, *rehearsed], weights.card.intensity, 2**32)
        chosen = TrainSettings.few_cases(
            CASES, weights.card, keeping=keeping, batch=batch, workers=0, precision=precision
        )
        warm, counted = (chosen.model_copy(update={"steps_per_epoch": count}) for count in (warm_up, steps))
        trainer = Trainer(copy.deepcopy(weights.model), warm, processes, teacher=weights.model if keeping else None)
        crops = TrainingCrops(
            opened,
            [1.0] * len(opened),
            size=weights.model.config.crop,
            length=(warm_up + steps) * trainer.batch,
            seed=0,
            inference_share=chosen.inference_share,
            inference_spacings=chosen.inference_spacings,
            homogeneous=chosen.homogeneous,
        )
        trainer.train_epoch(crops, 0)
        trainer.settings = counted
        clock = StageClock(processes.device, seconds_of)
        with stages_of(trainer.model, clock), stages_of_teacher(weights.model, clock):
            began = clock.now()
            trainer.train_epoch(crops, 1)
            seconds = clock.now() - began
    of_crop = {stage: clock.seconds[stage] / (steps * batch) for stage in STAGES}
    other = seconds / (steps * batch) - sum(of_crop.values())
    return Speed(steps * batch / seconds, {**of_crop, "other": other})


def main(
    weights: Annotated[str, typer.Option(help="Shipped name or path.")] = "tiny",
    device: Annotated[str, typer.Option(help="Torch device.")] = "cuda" if torch.cuda.is_available() else "cpu",
    steps: Annotated[int, typer.Option(min=1, help="Counted optimizer steps.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Crops of a step.")] = 1,
    warm_up: Annotated[int, typer.Option(min=1, help="Steps before them that are not counted.")] = 3,
    specialise: Annotated[bool, typer.Option("--specialise", help="As with reference_limit none.")] = False,
    precision: Annotated[
        list[Precision] | None, typer.Option(help="Given twice: both are measured, in turn.", show_default="auto")
    ] = None,
    processor_time: Annotated[
        bool, typer.Option("--processor-time", help="Count this process's time on the processor, not the clock's.")
    ] = False,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each precision, of which medians are shown.")] = 1,
    json: Annotated[Path | None, typer.Option(help="File for the numbers.")] = None,
) -> None:
    """Measure and print."""
    opened = open_weights(weights, device)
    speeds: dict[str, list[Speed]] = {each.value: [] for each in precision or [Precision.AUTO]}
    for _ in range(runs):
        for name, measured in speeds.items():
            clock = time.process_time if processor_time else time.perf_counter
            speed = measure(
                opened,
                device,
                steps,
                batch,
                warm_up=warm_up,
                keeping=not specialise,
                precision=name,
                seconds_of=clock,
            )
            measured.append(speed)
    for name, measured in speeds.items():
        show(f"{opened.version} on {device}, {name}", measured)
    if json:
        write_json(json, {name: [each._asdict() for each in measured] for name, measured in speeds.items()})


def show(title: str, speeds: list[Speed]) -> None:
    """Print the medians over some runs."""
    crops_per_second = [speed.crops_per_second for speed in speeds]
    each = " ".join(f"{value:.2f}" for value in crops_per_second)
    table = Table("stage", "ms per crop", "share", title=f"{title}: {median(crops_per_second):.2f} crops/s ({each})")
    stages = {stage: median(speed.stages[stage] for speed in speeds) for stage in speeds[0].stages}
    for stage, seconds in stages.items():
        table.add_row(stage, f"{1000 * seconds:.0f}", f"{seconds / sum(stages.values()):.0%}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
