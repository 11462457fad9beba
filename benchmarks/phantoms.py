"""Dice of clicks and of a box by size and contrast of the lesion, on phantoms that no weights were trained on.

    python benchmarks/phantoms.py [--cases 40] [--seed 77] [--weights W] [--json FILE]

The phantoms are those of `python -m sam3d_label phantom OUT --cases 40 --seed 77`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sam3d_label.evaluation.annotators import ANNOTATORS
from sam3d_label.evaluation.metrics import bootstrap_interval
from sam3d_label.evaluation.session import evaluate_case
from sam3d_label.image.volume import Volume
from sam3d_label.io import write_json
from sam3d_label.masks import corners, dice
from sam3d_label.segmentation.prompts import Box
from sam3d_label.segmentation.segmenter import Segmenter
from sam3d_label.synthetic import Phantom, make_phantom
from sam3d_label.synthetic.phantoms import PhantomMeta
from sam3d_label.weights import Weights, open_weights

SMALL_MM, LARGE_MM = 20.0, 50.0
FAINT = {"ct": 40.0, "mr": 0.2}
"""Contrast, HU or share of the MR scale, under which a lesion has low contrast: about the median of all lesions."""


@dataclass(frozen=True)
class PhantomResult:
    """One phantom: its metadata, Dice after each click from 1 on, and Dice of the lesion's bounding box."""

    case: str
    meta: PhantomMeta
    dices: tuple[float, ...]
    box: float

    @property
    def size(self) -> str:
        """The bin of its longest diameter."""
        if self.meta["diameter_mm"] < SMALL_MM:
            return f"under {SMALL_MM:g} mm"
        return f"{SMALL_MM:g} to {LARGE_MM:g} mm" if self.meta["diameter_mm"] <= LARGE_MM else f"over {LARGE_MM:g} mm"

    @property
    def contrast(self) -> str:
        """Return the bin of its absolute contrast with the surroundings."""
        return "low contrast" if abs(self.meta["contrast"]) < FAINT[self.meta["modality"]] else "high contrast"


SIZES = (f"under {SMALL_MM:g} mm", f"{SMALL_MM:g} to {LARGE_MM:g} mm", f"over {LARGE_MM:g} mm")
CONTRASTS = ("low contrast", "high contrast")
BOX = "box"


def phantoms(cases: int, seed: int) -> Iterator[tuple[str, Phantom]]:
    """Yield the phantoms of a set with their names, each from its own random stream."""
    for index, stream in enumerate(np.random.SeedSequence(seed).spawn(cases)):
        yield f"phantom_{index:03d}", make_phantom(np.random.default_rng(stream))


def measure(
    name: str, phantom: Phantom, weights: Weights, annotator: str, counts: Sequence[int], seed: int
) -> PhantomResult:
    """Click on one phantom, and draw a box."""
    volume = Volume(np.rint(phantom.image), phantom.affine)
    segmenter, truth = Segmenter(volume, weights), phantom.label > 0
    records = evaluate_case(
        segmenter,
        truth,
        ANNOTATORS[annotator],
        spacing=volume.spacing.tolist(),
        clicks=counts,
        seed=zlib.crc32(f"{seed}/{name}".encode()),
    )
    found = corners(truth)
    assert found is not None, "a phantom has a lesion"
    box = Box.from_pairs(np.stack(found, 1).ravel().tolist())
    boxed = segmenter.segment([box]).mask > 0
    return PhantomResult(name, phantom.meta, tuple(record.dice for record in records), dice(boxed, truth))


def group(name: str, measured: Sequence[PhantomResult], counts: Sequence[int]) -> dict[str, Any]:
    """Return the mean Dice by click count, and of a box, with its 95 % interval; `None` for a group without cases."""
    dices = {str(count): [each.dices[count - 1] for each in measured] for count in counts}
    dices[BOX] = [each.box for each in measured]
    return {
        "group": name,
        "cases": len(measured),
        "dice": {count: fmean(values) if values else None for count, values in dices.items()},
        "dice_ci95": {count: list(bootstrap_interval(values)) if values else None for count, values in dices.items()},
    }


def groups(measured: Sequence[PhantomResult], counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Return groups: all phantoms, by size, by contrast, by both, by modality."""
    yield group("all", measured, counts)
    for size in SIZES:
        yield group(size, [each for each in measured if each.size == size], counts)
    for contrast in CONTRASTS:
        yield group(contrast, [each for each in measured if each.contrast == contrast], counts)
    for size in SIZES:
        for contrast in CONTRASTS:
            both = [each for each in measured if (each.size, each.contrast) == (size, contrast)]
            yield group(f"{size}, {contrast}", both, counts)
    for modality in FAINT:
        yield group(modality.upper(), [each for each in measured if each.meta["modality"] == modality], counts)


def table(rows: Sequence[dict[str, Any]], counts: Sequence[int], title: str) -> Table:
    """Format the groups with mean and interval."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("lesions")
    for name in ("n", *(f"Dice@{count}" for count in counts), "a box"):
        shown.add_column(name, justify="right")
    for row in rows:
        cells = []
        for count, mean in row["dice"].items():
            low, high = row["dice_ci95"][count] or (None, None)
            cells.append("–" if mean is None else f"{mean:.3f} ({low:.2f}–{high:.2f})")
        shown.add_row(row["group"], str(row["cases"]), *cells)
    return shown


def main(
    cases: int = 40,
    seed: Annotated[int, typer.Option(help="20261 and 20262 are those of training sets.")] = 77,
    weights: Annotated[str | None, typer.Option(help="A file, or the name of shipped ones.")] = None,
    clicks: Annotated[str, typer.Option(help="Click counts to report, from 1 on.")] = "1,3,5,10",
    annotator: Annotated[str, typer.Option(help=f"One of {', '.join(ANNOTATORS)}.")] = "error_centre",
    device: str = "cpu",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers here too.")] = None,
) -> None:
    """Make phantoms, click on each, print a table."""
    if annotator not in ANNOTATORS:
        raise typer.BadParameter(f"{annotator}: choose from {', '.join(ANNOTATORS)}")
    counts = sorted({int(count) for count in clicks.split(",")})
    if counts[0] < 1 or cases < 1:
        raise typer.BadParameter("give at least 1 case, and click counts from 1 on")
    opened = open_weights(weights, device)
    made = track(phantoms(cases, seed), total=cases, console=Console(stderr=True), description="phantoms")
    measured = [measure(name, phantom, opened, annotator, counts, seed) for name, phantom in made]
    rows = list(groups(measured, counts))
    about = {"weights": opened.version, "annotator": annotator, "seed": seed}
    if json_file:
        write_json(json_file, {**about, "groups": rows, "cases": [vars(each) for each in measured]})
    Console().print(table(rows, counts, f"{cases} phantoms · {opened.version} · {annotator}"))


if __name__ == "__main__":
    typer.run(main)
