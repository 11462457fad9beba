"""Dice of one click in each volume, sent to the running server as a client does.

python benchmarks/server_dice.py IMAGES LABELS [--cases GLOB] [--json FILE]
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from app_server import server
from monailabel.client.client import MONAILabelClient
from rich.console import Console
from rich.progress import track

from sam3d_label.evaluation.cases import EvaluationCase, find_cases
from sam3d_label.image.volume import Volume
from sam3d_label.masks import deepest_voxel, dice


@dataclass(frozen=True)
class VolumeResult:
    """One case: the click, the Dice of its mask, and the seconds of the whole request."""

    case: str
    click: tuple[int, int, int]
    dice: float
    seconds: float


def measure(client: MONAILabelClient, case: EvaluationCase) -> VolumeResult:
    """Click the deepest voxel of the target and compare the answer with the truth."""
    if case.label is None:
        raise RuntimeError(f"{case.name} has no label")
    label = Volume.open(case.label)
    truth = label.array > 0
    click = deepest_voxel(truth)
    if click is None:
        raise RuntimeError(f"{case.label} is empty")
    params = {"foreground": [list(click)], "background": [], "result_extension": ".nrrd"}
    started = time.monotonic()
    file, _ = client.infer("sam3d", case.name, params)
    seconds = time.monotonic() - started
    mask = Volume.open(file).array > 0
    Path(file).unlink()
    return VolumeResult(case.name, click, dice(mask, truth), seconds)


def table(rows: list[VolumeResult]) -> str:
    """Format the results in Markdown, the mean last."""
    lines = ["| volume | click (i, j, k) | Dice | seconds |", "|---|---|---|---|"]
    lines += [f"| {r.case} | {r.click[0]}, {r.click[1]}, {r.click[2]} | {r.dice:.3f} | {r.seconds:.1f} |" for r in rows]
    mean, median = np.mean([r.dice for r in rows]), np.median([r.seconds for r in rows])
    return "\n".join([*lines, f"| **mean** (seconds: median) | | **{mean:.3f}** | **{median:.1f}** |"])


def main(
    images: Path,
    labels: Path,
    cases: Annotated[str, typer.Option(help="Only the files that match; several globs by commas.")] = "*",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers here too.")] = None,
) -> None:
    """Start the server on the images, click once in each, print a table."""
    found = find_cases(images, labels, cases)
    with tempfile.TemporaryDirectory() as folder:
        for case in found:
            shutil.copy(case.image, folder)
        with server(Path(folder)) as started:
            client = MONAILabelClient(started.url)
            rows = [measure(client, case) for case in track(found, console=Console(stderr=True))]
    print(table(rows))
    if json_file:
        json_file.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
