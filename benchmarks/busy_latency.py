"""Latency of clicks during a training, compared with that of an idle server.

    python benchmarks/busy_latency.py IMAGES LABELS [--cases GLOB] [--json FILE]

The server runs twice on the same volumes, all of which are labelled: first idle, when it has looked at all of them for
the strategies, then with a training that goes on all the time. Each volume gets a first click and a next one; those in
the first volume, which open the weights, are not counted. Before each click the annotator thinks for a while, in which
the training works.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from app_server import server
from monailabel.client.client import MONAILabelClient
from rich.console import Console
from rich.progress import track

from sam3d_label.evaluation.cases import EvaluationCase, find_cases
from sam3d_label.image.volume import Volume
from sam3d_label.io import write_json
from sam3d_label.masks import deepest_voxel

PATIENCE = 300
"""Seconds within which the server must list all volumes, and a training must reach its first epoch."""


@dataclass(frozen=True)
class Clicks:
    """Seconds of the first click in a volume and of the next one."""

    first: float
    next: float


def label_of(case: EvaluationCase) -> Volume:
    """Open the label of a case."""
    if case.label is None:
        raise RuntimeError(f"{case.name} has no label")
    return Volume.open(case.label)


def save_label(client: MONAILabelClient, case: EvaluationCase) -> None:
    """Submit a label as an annotator does; its lowest value is the target."""
    target, *others = (int(value) for value in np.unique(label_of(case).array) if value)
    info = [{"name": "tumor", "idx": target}, *({"name": f"other {value}", "idx": value} for value in others)]
    client.save_label(case.name, str(case.label), params={"label_info": info})


def deepest(case: EvaluationCase, outside: bool) -> list[int]:
    """Return the deepest voxel of the target, or of the background."""
    label = label_of(case)
    side = (label.array > 0) != outside
    found = deepest_voxel(side)
    assert found is not None
    return list(found)


def click_through(client: MONAILabelClient, cases: Sequence[EvaluationCase], think: float) -> list[Clicks]:
    """Send a first and a next click in each volume but the first."""
    seconds = []
    for case in track(cases, console=Console(stderr=True)):
        inside, outside = deepest(case, outside=False), deepest(case, outside=True)
        seconds.append(Clicks(*(_timed(client, case, inside, out, think) for out in ([], [outside]))))
    return seconds[1:]


def _timed(
    client: MONAILabelClient, case: EvaluationCase, inside: list[int], outside: list[list[int]], think: float
) -> float:
    time.sleep(think)
    began = time.monotonic()
    file, _ = client.infer("sam3d", case.name, {"foreground": [inside], "background": outside})
    seconds = time.monotonic() - began
    Path(file).unlink()
    return seconds


def wait_until(done: Callable[[], bool], what: str) -> None:
    """Wait for a condition; raise RuntimeError if it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} took longer than {PATIENCE} s")
        time.sleep(1)


def all_seen(client: MONAILabelClient) -> bool:
    """Return whether the server has scored every volume."""
    objects = client.datastore()["objects"].values()
    return all("sam3d" in each["image"]["info"] for each in objects)


def has_trained(client: MONAILabelClient) -> bool:
    """Return whether a training has finished its first epoch."""
    return bool(client.info().get("train_stats", {}).get("sam3d", {}).get("epoch"))


def main(
    images: Path,
    labels: Path,
    cases: Annotated[str, typer.Option(help="Only the files that match; several globs by commas.")] = "*",
    think: Annotated[float, typer.Option(help="Seconds before each click.")] = 3.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers here too.")] = None,
) -> None:
    """Click idle, click while a training runs, print medians and their ratio."""
    found = find_cases(images, labels, cases)
    if len(found) < 2:
        raise typer.BadParameter("the clicks in the first volume are not counted: give at least two")
    with tempfile.TemporaryDirectory() as folder:
        for case in found:
            shutil.copy(case.image, folder)
        with server(Path(folder)) as started:
            client = MONAILabelClient(started.url)
            for case in found:
                save_label(client, case)
            wait_until(lambda: all_seen(client), "looking at all volumes")
            idle = click_through(client, found, think)
        with server(Path(folder)) as started:
            client = MONAILabelClient(started.url)
            client.train_start("sam3d", {"max_epochs": 1000})
            wait_until(lambda: has_trained(client), "the first epoch")
            busy = click_through(client, found, think)
            client.train_stop()
    numbers = {}
    for name in ("first", "next"):
        idle_seconds, busy_seconds = (median(getattr(each, name) for each in side) for side in (idle, busy))
        numbers[name] = {"idle": idle_seconds, "training": busy_seconds, "ratio": busy_seconds / idle_seconds}
        ratio = busy_seconds / idle_seconds
        print(
            f"{name} click: {idle_seconds:.2f} s idle, {busy_seconds:.2f} s while training, {ratio:.2f} times as long"
        )
    if json_file:
        write_json(json_file, {"volumes": len(idle), "think": think, "clicks": numbers})


if __name__ == "__main__":
    typer.run(main)
