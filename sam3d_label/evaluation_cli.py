"""``python -m sam3d_label evaluate``: weights, measured with a simulated annotator."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sam3d_label.errors import Sam3dError
from sam3d_label.options import (
    DeviceOption,
    LabelOption,
    OverwriteOption,
    WeightsOption,
    check_device,
    examples,
    require_unused,
)

if TYPE_CHECKING:
    from sam3d_label.evaluation.protocol import Cohort
    from sam3d_label.weights import Weights

app = typer.Typer()
DEFAULT_CLICKS = "1,2,3,5,10"


@app.command(
    epilog=examples(
        "evaluate sample-data/images sample-data/labels out",
        "evaluate images labels out --cases '*_mr*' --annotator jittered",
        "evaluate images labels out --label 5 --clicks 1,5 --noc 20",
        "evaluate images labels out --clicks 0,1,3,5,10",
    )
)
def evaluate(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of volumes, or one volume.")],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Folder of labels with the images' names, or one.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for tables, summary and pictures.")],
    label: LabelOption = None,
    weights: WeightsOption = None,
    clicks: Annotated[
        str, typer.Option(metavar="LIST", help="Click counts to report; 0 is before the first.")
    ] = DEFAULT_CLICKS,
    annotator: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Who clicks: error_centre, largest_component_centre, jittered, random_foreground.",
        ),
    ] = "error_centre",
    seed: Annotated[int, typer.Option(metavar="S", help="Of the annotator's chance.")] = 0,
    cases: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Only the files that match; several globs by commas.", show_default="all"),
    ] = None,
    device: DeviceOption = "cpu",
    noc: Annotated[
        int | None,
        typer.Option(
            metavar="CAP",
            help="Click on to this count for the number of clicks (NoC) to reach Dice 0.80, 0.85 and 0.90; "
            "a case that does not reach it counts as CAP. The published cap is 20.",
            show_default="largest of --clicks",
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure the weights with a simulated annotator on labelled volumes.

    A click is given, the mask compared with the truth, the next click placed.
    The model sees clicks only. Seconds are those of the requests, the volume
    being open; Dice and surface Dice (NSD) are means over cases. OUT holds
    cases.csv, clicks.csv, summary.json, curve.png and worst.png, which shows
    the cases that end with the lowest Dice.
    """
    counts = _counts(clicks)
    cap = _cap(noc, counts)
    from sam3d_label.evaluation.annotators import ANNOTATORS

    if annotator not in ANNOTATORS:
        raise Sam3dError(f"--annotator {annotator}: there is no such one; choose from {', '.join(ANNOTATORS)}")
    check_device(device)
    from sam3d_label.evaluation.protocol import find_cases
    from sam3d_label.evaluation.report import write_report
    from sam3d_label.weights import open_weights

    find_cases(images, labels, cases)
    written = ("cases.csv", "clicks.csv", "summary.json", "curve.png", "worst.png")
    require_unused(*(out / name for name in written), overwrite=overwrite)
    opened = open_weights(weights, device)
    _check_learned(opened, annotator, counts)
    cohort = _measured(
        images,
        labels,
        opened,
        annotator=ANNOTATORS[annotator],
        label=label,
        clicks=counts,
        last=cap,
        seed=seed,
        cases=cases,
    )
    about = {
        "annotator": annotator,
        "seed": seed,
        "clicks": counts,
        "weights": {"name": weights or opened.card.preset, "version": opened.version},
        "device": device,
        "peak_memory_mib": _peak_memory_mib(),
        "peak_device_memory_mib": _peak_device_memory_mib(device),
        "command": shlex.join(["python", "-m", "sam3d_label", *sys.argv[1:]]),
    }
    _show_summary(write_report(out, cohort, counts, cap, about), out)


def _counts(text: str) -> list[int]:
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = []
    if not counts or counts[0] < 0 or counts[-1] < 1:
        raise Sam3dError(f"--clicks {text}: give click counts from 1 on, such as {DEFAULT_CLICKS}, and 0 if wanted")
    return counts


def _cap(noc: int | None, counts: Sequence[int]) -> int:
    if noc is not None and noc < 1:
        raise Sam3dError(f"--noc {noc}: give at least 1, such as 20")
    return max(counts) if noc is None else noc


def _check_learned(weights: Weights, annotator: str, counts: Sequence[int]) -> None:
    """Raise when the annotator corrects with clicks, or no click is asked for, and the weights have not learned it."""
    from sam3d_label.evaluation.annotators import POSITIVE_ONLY

    if annotator not in POSITIVE_ONLY and "negative_click" not in weights.card.capabilities:
        allowed = ", ".join(sorted(POSITIVE_ONLY))
        raise Sam3dError(f"these weights know no clicks outside the target; use --annotator {allowed}")
    if 0 in counts and "no_click" not in weights.card.capabilities:
        raise Sam3dError("these weights have not learned to segment without a click; leave 0 out of --clicks")


def _measured(images: Path, labels: Path, weights: Weights, **options: Any) -> Cohort:
    """The cohort, with a progress bar on standard error; raises Sam3dError when no case could be measured."""
    from sam3d_label.evaluation.protocol import evaluate_cohort
    from sam3d_label.progress import bar
    from sam3d_label.segmenter import Segmenter

    errors = Console(stderr=True)
    with bar(errors) as show:
        cohort = evaluate_cohort(images, labels, lambda volume: Segmenter(volume, weights), progress=show, **options)
    for skipped in cohort.skipped if cohort.results else ():
        errors.print(f"skipped {skipped.case}: {skipped.reason}", highlight=False, markup=False, soft_wrap=True)
    if not cohort.results:
        first = cohort.skipped[0]
        raise Sam3dError(f"none of {len(cohort.skipped)} cases could be measured; {first.case}: {first.reason}")
    return cohort


def _peak_memory_mib() -> float | None:
    """The most main memory this process has held, MiB; ``None`` where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _peak_device_memory_mib(device: str) -> float | None:
    """The most memory that tensors have held on a CUDA device, MiB; ``None`` for other devices."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**20


def _show_summary(summary: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    table = Table(title=f"{summary['cases']} cases · {summary['annotator']}", title_justify="left")
    for name in ("clicks", "Dice", "95 % interval", "NSD 2 mm", "NSD 5 mm"):
        table.add_column(name, justify="right")
    for count, value in summary["dice"].items():
        low, high = summary["dice_ci95"][count]
        surfaces = [f"{summary[name][count]:.3f}" for name in ("nsd_2mm", "nsd_5mm")]
        table.add_row(count, f"{value:.3f}", f"{low:.3f}–{high:.3f}", *surfaces)
    console = Console()
    console.print(table)
    cap, failed = summary["noc_cap"], summary["failures"]["noc85"]
    console.print(f"clicks to Dice 0.85: {summary['noc85']:.1f} ({failed} of {summary['cases']} not within {cap})")
    following = summary["seconds_next_click"]
    then = "" if following is None else f", next click {following:.2f} s"
    console.print(f"first click {summary['seconds_first_click']:.2f} s{then} (medians)")
    typer.echo(f"wrote {out}")
