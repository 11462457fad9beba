"""Seconds of a first and a next click by size of the volume, in the library and over HTTP.

    python benchmarks/click_latency.py [--weights tiny] [--clicks 7] [--json FILE]

The volumes are synthetic CT: a body in air, with a bright ball of 24 mm radius. In each volume a first click is placed
in the ball and further clicks at its border; the first volume opens the weights and is not counted. Library: a
`Segmenter` in this process. HTTP: MONAI Label's client and a server in a process of its own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import nibabel as nib
import numpy as np
import typer
from app_server import server
from monailabel.client.client import MONAILabelClient
from rich.console import Console
from rich.table import Table

from sam3d_label import Click, Segmenter, Volume, open_weights
from sam3d_label.cache import LruCache
from sam3d_label.io import write_json

RADIUS = 24.0
"""Of a ball, mm."""

Ijk = tuple[int, int, int]


@dataclass(frozen=True)
class Scan:
    """Size of a synthetic volume.

    Attributes:
        shape: Voxels.
        spacing: mm.
    """

    shape: Ijk
    spacing: tuple[float, float, float]

    @property
    def name(self) -> str:
        """Shape as text."""
        return "×".join(map(str, self.shape))

    @property
    def ball(self) -> Ijk:
        """Middle of the ball."""
        i, j, k = (size // 2 for size in self.shape)
        return i, j, k

    def clicks(self, count: int) -> list[Click]:
        """Return a click in the middle of the ball and others at its border, inside and outside in turn."""
        found = [Click(self.ball)]
        for number in range(count - 1):
            axis, positive = number % 3, number % 2 == 0
            way = (0.8 if positive else 1.3) * RADIUS / self.spacing[axis] * (1 if number % 4 < 2 else -1)
            i, j, k = (at + round(way * (axis == each)) for each, at in enumerate(self.ball))
            found.append(Click((i, j, k), positive=positive))
        return found

    def write(self, file: Path) -> None:
        """Write the volume."""
        rng = np.random.default_rng(0)
        array = np.full(self.shape, -1000, np.int16)
        inside = tuple(slice(size // 8, -size // 8) for size in self.shape[:2])
        array[inside] = 40
        near = tuple(
            slice(max(0, at - round(RADIUS / s)), at + round(RADIUS / s) + 1)
            for at, s in zip(self.ball, self.spacing, strict=True)
        )
        away = [
            (np.arange(along.start, along.stop) - at) * s
            for along, at, s in zip(near, self.ball, self.spacing, strict=True)
        ]
        squares = away[0][:, None, None] ** 2 + away[1][:, None] ** 2 + away[2] ** 2
        array[near][squares <= RADIUS**2] = 120
        array += rng.integers(-15, 16, self.shape, np.int16)
        nib.save(nib.Nifti1Image(array, np.diag([*self.spacing, 1.0])), file)


SCANS = (
    Scan((96, 96, 48), (1.0, 1.0, 2.0)),  # opens the weights
    Scan((200, 200, 60), (0.98, 0.98, 3.3)),
    Scan((512, 512, 400), (0.8, 0.8, 1.0)),
)


def timed(send: Callable[[Sequence[Click]], object], clicks: Sequence[Click]) -> list[float]:
    """Return the seconds of a session that sends all clicks again with each new one."""
    seconds = []
    for count in range(1, len(clicks) + 1):
        started = time.perf_counter()
        send(clicks[:count])
        seconds.append(time.perf_counter() - started)
    return seconds


def in_library(folder: Path, weights: str, count: int) -> dict[str, list[float]]:
    """Return the seconds of each click by volume, in this process."""
    opened, found = open_weights(weights), {}
    for scan in SCANS:
        segmenter = Segmenter(Volume.open(folder / f"{scan.name}.nii.gz"), opened, cache=LruCache())
        found[scan.name] = timed(segmenter.segment, scan.clicks(count))
    return found


def over_http(folder: Path, weights: str, count: int) -> dict[str, list[float]]:
    """Return the seconds of each click by volume, as MONAI Label's client waits for them."""
    found = {}
    with server(folder, "--conf", "weights", weights) as running:
        client = MONAILabelClient(running.url)
        for scan in SCANS:

            def send(clicks: Sequence[Click], image: str = scan.name) -> None:
                inside = [list(click.ijk) for click in clicks if click.positive]
                outside = [list(click.ijk) for click in clicks if not click.positive]
                file, _ = client.infer("sam3d", image, {"foreground": inside, "background": outside})
                Path(file).unlink()

            found[scan.name] = timed(send, scan.clicks(count))
    return found


def main(
    weights: Annotated[str, typer.Option(help="Name or path of the weights.")] = "tiny",
    clicks: Annotated[int, typer.Option(min=2, help="Clicks in each volume.")] = 7,
    json: Annotated[Path | None, typer.Option(help="File for all seconds.")] = None,
) -> None:
    """Measure the latency of clicks by size of the volume."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for scan in SCANS:
            scan.write(folder / f"{scan.name}.nii.gz")
        seconds = {"library": in_library(folder, weights, clicks), "HTTP": over_http(folder, weights, clicks)}
    table = Table("volume", "where", "first click, s", "next click, s (median)")
    for scan in SCANS[1:]:
        for where, found in seconds.items():
            first, *following = found[scan.name]
            table.add_row(scan.name, where, f"{first:.2f}", f"{median(following):.2f}")
    Console().print(table)
    if json:
        write_json(json, {"weights": weights, "seconds": seconds})


if __name__ == "__main__":
    typer.run(main)
