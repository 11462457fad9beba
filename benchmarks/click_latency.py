"""Seconds of a first and a next click by size of the volume, in the library and over HTTP.

    python benchmarks/click_latency.py [--weights W] [--clicks 7] [--runs 1] [--processor-time]
        [--json FILE]

The volumes are synthetic CT: a body in air, with one bright ball. In each volume a first click is placed in the ball
and further clicks at its border; the first volume opens the weights and is not counted. A ball of 24 mm radius is seen
in the first view; one of 6 mm seems small, so that weights that predict the Dice of their masks compare several views.
Library: a `Segmenter` in this process; the volume is opened before its first click. HTTP: MONAI Label's client and a
server in a process of its own, which opens the volume for its first click. With several runs, each starts a new server,
and the table shows the least of each value: other work on the machine can only add to it. `--processor-time` gives
steadier figures there: the time on the processor of this process, over HTTP that of the server.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import nibabel as nib
import numpy as np
import typer
from app_server import server
from monailabel.client.client import MONAILabelClient
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from sam3d_label import Click, Segmenter, Volume, open_weights
from sam3d_label.cache import LruCache
from sam3d_label.io import write_json
from sam3d_label.weights.locations import DEFAULT

LARGE, SMALL = 24.0, 6.0
"""Radius of a ball, mm."""

Ijk = tuple[int, int, int]


@dataclass(frozen=True)
class Scan:
    """A synthetic volume.

    Attributes:
        shape: Voxels.
        spacing: mm.
        radius: Of the ball, mm.
    """

    shape: Ijk
    spacing: tuple[float, float, float]
    radius: float = LARGE

    @property
    def size(self) -> str:
        """Shape as text."""
        return "×".join(map(str, self.shape))

    @property
    def name(self) -> str:
        """Name of the image."""
        return f"{self.size}-{self.radius:g}mm"

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
            way = (0.8 if positive else 1.3) * self.radius / self.spacing[axis] * (1 if number % 4 < 2 else -1)
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
            slice(max(0, at - round(self.radius / s)), at + round(self.radius / s) + 1)
            for at, s in zip(self.ball, self.spacing, strict=True)
        )
        away = [
            (np.arange(along.start, along.stop) - at) * s
            for along, at, s in zip(near, self.ball, self.spacing, strict=True)
        ]
        squares = away[0][:, None, None] ** 2 + away[1][:, None] ** 2 + away[2] ** 2
        array[near][squares <= self.radius**2] = 120
        array += rng.integers(-15, 16, self.shape, np.int16)
        nib.save(nib.Nifti1Image(array, np.diag([*self.spacing, 1.0])), file)


WARM_UP = Scan((96, 96, 48), (1.0, 1.0, 2.0))
SCANS = tuple(
    Scan(shape, spacing, radius)
    for shape, spacing in (((200, 200, 60), (0.98, 0.98, 3.3)), ((512, 512, 400), (0.8, 0.8, 1.0)))
    for radius in (LARGE, SMALL)
)


class Latency(BaseModel):
    """Of the clicks in one volume.

    Attributes:
        where: Library or HTTP.
        image: Name of the volume.
        opened: Seconds to open the volume before the first click; None where the first click does it.
        seconds: Of each click.
        encoded: Crops that were encoded for each click.
    """

    where: str
    image: str
    opened: float | None
    seconds: list[float]
    encoded: list[int]


class Report(BaseModel):
    """What `--json` writes."""

    weights: str
    latencies: list[Latency]


def timed(
    send: Callable[[Sequence[Click]], int], clicks: Sequence[Click], clock: Callable[[], float] = time.perf_counter
) -> tuple[list[float], list[int]]:
    """Return seconds and crops encoded for each click of a session that sends all clicks again with each new one.

    Args:
        send: Sends clicks; returns the number of crops encoded.
        clicks: Those of the session.
        clock: Seconds that have passed.
    """
    seconds, encoded = [], []
    for count in range(1, len(clicks) + 1):
        started = clock()
        encoded.append(send(clicks[:count]))
        seconds.append(clock() - started)
    return seconds, encoded


def in_library(folder: Path, weights: str, count: int, *, processor_time: bool = False) -> Iterator[Latency]:
    """Yield the latency in each volume, in this process."""
    loaded, clock = open_weights(weights), time.process_time if processor_time else time.perf_counter
    for scan in (WARM_UP, *SCANS):
        started = clock()
        volume = Volume.open(folder / f"{scan.name}.nii.gz")
        opened = clock() - started
        segmenter = Segmenter(volume, loaded, cache=LruCache())

        def send(clicks: Sequence[Click], segmenter: Segmenter = segmenter) -> int:
            return segmenter.segment(clicks).encoded

        seconds, encoded = timed(send, scan.clicks(count), clock)
        if scan is not WARM_UP:
            yield Latency(where="library", image=scan.name, opened=opened, seconds=seconds, encoded=encoded)


def over_http(folder: Path, weights: str, count: int, *, processor_time: bool = False) -> Iterator[Latency]:
    """Yield the latency in each volume, as MONAI Label's client waits for it."""
    with server(folder, "--conf", "weights", weights) as running:
        client = MONAILabelClient(running.url)

        def server_time() -> float:
            times = running.process.cpu_times()
            return float(times.user + times.system)

        clock = server_time if processor_time else time.perf_counter
        for scan in (WARM_UP, *SCANS):

            def send(clicks: Sequence[Click], image: str = scan.name) -> int:
                inside = [list(click.ijk) for click in clicks if click.positive]
                outside = [list(click.ijk) for click in clicks if not click.positive]
                file, params = client.infer("sam3d", image, {"foreground": inside, "background": outside})
                Path(file).unlink()
                return int(params["encoded"])

            seconds, encoded = timed(send, scan.clicks(count), clock)
            if scan is not WARM_UP:
                yield Latency(where="HTTP", image=scan.name, opened=None, seconds=seconds, encoded=encoded)


def summary(latencies: Sequence[Latency]) -> Table:
    """Return the least values of several runs as a table."""
    table = Table("volume", "ball, mm", "where", "open, s", "first click, s", "crops", "next click, s (median)")
    for scan in SCANS:
        for where in ("library", "HTTP"):
            runs = [one for one in latencies if (one.where, one.image) == (where, scan.name)]
            opened = min((one.opened for one in runs if one.opened is not None), default=None)
            table.add_row(
                scan.size,
                f"{scan.radius:g}",
                where,
                "" if opened is None else f"{opened:.2f}",
                f"{min(one.seconds[0] for one in runs):.2f}",
                str(runs[0].encoded[0]),
                f"{min(median(one.seconds[1:]) for one in runs):.2f}",
            )
    return table


def main(
    weights: Annotated[str, typer.Option(help="Name or path of the weights.")] = DEFAULT,
    clicks: Annotated[int, typer.Option(min=2, help="Clicks in each volume.")] = 7,
    runs: Annotated[int, typer.Option(min=1, help="Runs, of which the least values are shown.")] = 1,
    processor_time: Annotated[
        bool, typer.Option("--processor-time", help="Count the time on the processor, not the clock's.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="File for all values.")] = None,
) -> None:
    """Measure the latency of clicks by size of the volume."""
    latencies: list[Latency] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for scan in (WARM_UP, *SCANS):
            scan.write(folder / f"{scan.name}.nii.gz")
        for _ in range(runs):
            latencies += in_library(folder, weights, clicks, processor_time=processor_time)
            latencies += over_http(folder, weights, clicks, processor_time=processor_time)
    Console().print(summary(latencies))
    if json:
        write_json(json, Report(weights=weights, latencies=latencies).model_dump())


if __name__ == "__main__":
    typer.run(main)
