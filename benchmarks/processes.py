"""Training in several processes compared with one: the same crops give the same loss and weights.

    OMP_NUM_THREADS=1 python benchmarks/processes.py [--weights tiny] [--processes 2] [--steps 2]

One optimizer step has as many crops as there are processes. On a CPU the processes share its cores, so that their time
says nothing about several GPUs; it is printed nevertheless.
"""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from sam3d_label import open_weights
from sam3d_label.network import PromptableNetwork
from sam3d_label.synthetic.phantoms import write_phantoms
from sam3d_label.training import TrainSettings
from sam3d_label.training.dataset import pair_cases
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.training.launch import train_in_processes
from sam3d_label.training.run import FineTune, TrainingRun

CASES = 3


def difference(one: PromptableNetwork, other: PromptableNetwork) -> float:
    """Return the largest difference between two weights of the same name."""
    theirs = other.state_dict()
    return max(float((value.float() - theirs[name].float()).abs().max()) for name, value in one.state_dict().items())


def main(
    weights: Annotated[str, typer.Option(help="Shipped name or path.")] = "tiny",
    processes: Annotated[int, typer.Option(min=2, help="Processes that train together.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 2,
) -> None:
    """Train in both ways and print losses, times and the difference of the weights."""
    start = open_weights(weights)
    ways: dict[str, FineTune] = {"one process": fine_tune, f"{processes} processes": train_in_processes(processes)}
    trained: list[PromptableNetwork] = []
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(Path(folder), CASES, seed=0)
        settings = TrainSettings.few_cases(
            CASES, start.card, epochs=1, steps_per_epoch=steps, batch=processes, warmup=0, workers=0, precision="fp32"
        )
        run = TrainingRun(
            cases=pair_cases(Path(folder, "images"), Path(folder, "labels")),
            intensity=start.card.intensity,
            settings=settings,
        )
        for number, (name, train) in enumerate(ways.items()):
            model, began = copy.deepcopy(start.model), time.monotonic()
            report = train(model, run, Path(folder, f"out-{number}"))
            print(f"{name}: loss {report.epochs[-1].loss:.6f}, {time.monotonic() - began:.0f} s")
            trained.append(model)
    print(
        f"largest change of a weight: {difference(start.model, trained[0]):.2e};"
        f" largest difference between the two ways: {difference(*trained):.2e}"
    )


if __name__ == "__main__":
    typer.run(main)
