"""``python -m sam3d_label evaluate``: measure weights with a simulated annotator."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sam3d_label.cli.options import (
    DeviceOption,
    LabelOption,
    OverwriteOption,
    SeedOption,
    WeightsOption,
    check_device,
    examples,
    require_weights,
)
from sam3d_label.cli.paths import require_folder, require_inputs, require_unused
from sam3d_label.errors import Sam3dError

if TYPE_CHECKING:
    from sam3d_label.cli.progress import Show
    from sam3d_label.evaluation.cohort import Cohort
    from sam3d_label.evaluation.summary import EvaluationSummary
    from sam3d_label.weights import Weights

app = typer.Typer()
DEFAULT_CLICKS = "1,2,3,5,10"
MOST_CLICKS = 1000
"""Clicks on a case: each one is a request, and the prompts of all clicks are sent again each time."""

WRITTEN = ("cases.csv", "clicks.csv", "candidates.csv", "summary.json", "curve.png", "worst.png")


class AnnotatorName(str, Enum):
    """Simulated annotators; the names of `evaluation.annotators.ANNOTATORS`, which takes longer to import."""

    ERROR_CENTRE = "error_centre"
    LARGEST_COMPONENT_CENTRE = "largest_component_centre"
    JITTERED = "jittered"
    RANDOM_FOREGROUND = "random_foreground"


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
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Folder of labels with the names of the images, or one label.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for tables, summary and pictures.")],
    label: LabelOption = None,
    weights: WeightsOption = None,
    clicks: Annotated[
        str, typer.Option(metavar="LIST", help="Click counts to report; 0 is the mask without a click.")
    ] = DEFAULT_CLICKS,
    annotator: Annotated[
        AnnotatorName, typer.Option(help="Rule by which the simulated annotator places clicks.")
    ] = AnnotatorName.ERROR_CENTRE,
    seed: SeedOption = 0,
    cases: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Only files that match; several globs by commas.", show_default="all"),
    ] = None,
    device: DeviceOption = "cpu",
    noc: Annotated[
        int | None,
        typer.Option(
            metavar="CAP",
            min=1,
            max=MOST_CLICKS,
            help="Continue to this count to measure the number of clicks (NoC) to Dice 0.80, 0.85 and 0.90; "
            "a case that does not reach it counts as CAP. The published cap is 20.",
            show_default="largest of --clicks",
        ),
    ] = None,
    candidates: Annotated[
        bool, typer.Option("--candidates", help="Measure the candidates of each mask too, if the weights have them.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure the weights with a simulated annotator on labelled volumes.

    The annotator clicks, the mask is compared with the label, and the next
    click is placed on the error. The model gets clicks only. Seconds are those
    of a request on an open volume; Dice and surface Dice (NSD) are means over
    cases. OUT holds cases.csv, clicks.csv, summary.json, curve.png and
    worst.png, which shows the cases that end with the lowest Dice.
    """
    counts = _counts(clicks)
    cap = max(counts) if noc is None else noc
    require_folder(out)
    require_inputs(images, labels)
    require_unused(*(out / name for name in WRITTEN), overwrite=overwrite)
    require_weights(weights)
    from sam3d_label.cli.progress import loading, stderr, steps
    from sam3d_label.evaluation.annotators import ANNOTATORS
    from sam3d_label.evaluation.cases import find_cases, require_value
    from sam3d_label.evaluation.report import write_report
    from sam3d_label.evaluation.summary import Conditions, WeightsName

    require_value(find_cases(images, labels, cases), label)
    with steps(stderr()) as say:
        say(loading(weights))
        check_device(device)
        from sam3d_label.evaluation.cohort import evaluate_cohort
        from sam3d_label.segmentation.segmenter import Segmenter
        from sam3d_label.weights import open_weights

        opened = open_weights(weights, device)
    _check_learned(opened, annotator.value, counts)
    if candidates and not opened.model.config.candidates:
        raise Sam3dError("these weights give one mask only; leave out --candidates")
    measure = partial(
        evaluate_cohort,
        images,
        labels,
        lambda volume: Segmenter(volume, opened),
        ANNOTATORS[annotator.value],
        label=label,
        clicks=counts,
        last=cap,
        seed=seed,
        cases=cases,
        candidates=candidates,
    )
    cohort = _show_progress(measure)
    conditions = Conditions(
        annotator=annotator.value,
        seed=seed,
        clicks=counts,
        weights=WeightsName(name=weights or opened.card.preset, version=opened.version),
        device=device,
        peak_memory_mib=_peak_memory_mib(),
        peak_device_memory_mib=_peak_device_memory_mib(device),
        command=shlex.join(["python", "-m", "sam3d_label", *sys.argv[1:]]),
    )
    _show_summary(write_report(out, cohort, counts, cap, conditions), out)


def _counts(text: str) -> list[int]:
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = []
    if not counts or counts[0] < 0 or counts[-1] < 1:
        raise Sam3dError(f"--clicks {text}: give click counts from 1 on, such as {DEFAULT_CLICKS}, and 0 if wanted")
    if counts[-1] > MOST_CLICKS:
        raise Sam3dError(f"--clicks {text}: give click counts up to {MOST_CLICKS}")
    return counts


def _check_learned(weights: Weights, annotator: str, counts: Sequence[int]) -> None:
    """Raise unless the weights have learned every kind of click that the evaluation needs."""
    from sam3d_label.evaluation.annotators import POSITIVE_ONLY

    if annotator not in POSITIVE_ONLY and "negative_click" not in weights.card.capabilities:
        allowed = ", ".join(sorted(POSITIVE_ONLY))
        raise Sam3dError(f"these weights have not learned clicks outside the target; use --annotator {allowed}")
    if 0 in counts and "no_click" not in weights.card.capabilities:
        raise Sam3dError("these weights have not learned to segment without a click; leave 0 out of --clicks")


def _show_progress(measure: Callable[..., Cohort]) -> Cohort:
    """Run `evaluate_cohort` with progress on standard error.

    Args:
        measure: `evaluate_cohort` with all arguments but those for the progress.

    Raises:
        Sam3dError: No case could be measured.
    """
    from sam3d_label.cli.progress import bar

    errors = Console(stderr=True)
    with bar(errors) as show:
        clicks = _ClickProgress(show)
        cohort = measure(progress=clicks.case_begins, clicked=clicks.clicked)
    for skipped in cohort.skipped if cohort.results else ():
        errors.print(f"skipped {skipped.case}: {skipped.reason}", highlight=False, markup=False, soft_wrap=True)
    if not cohort.results:
        first = cohort.skipped[0]
        raise Sam3dError(f"none of {len(cohort.skipped)} cases could be measured; {first.case}: {first.reason}")
    return cohort


class _ClickProgress:
    """Shows the progress of an evaluation in clicks, as one case may take minutes."""

    def __init__(self, show: Show) -> None:
        self._show, self._case, self._done, self._cases = show, "", 0, 0

    def case_begins(self, case: str, done: int, cases: int) -> None:
        self._case, self._done, self._cases = case, done, cases

    def clicked(self, click: int, clicks: int) -> None:
        item = f"case {self._done + 1}/{self._cases} {self._case}, click {click}/{clicks}"
        self._show(item, self._done * clicks + click, self._cases * clicks)


def _peak_memory_mib() -> float | None:
    """Return the peak of main memory of this process, MiB; None where the system does not report it."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _peak_device_memory_mib(device: str) -> float | None:
    """Return the peak of memory of tensors on a CUDA device, MiB; None for other devices."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**20


def _show_summary(summary: EvaluationSummary, out: Path) -> None:
    from rich.table import Table

    table = Table(title=f"{summary.cases} cases · {summary.annotator}", title_justify="left")
    for name in ("clicks", "Dice", "95 % interval", "NSD 2 mm", "NSD 5 mm"):
        table.add_column(name, justify="right")
    for count, dice in summary.dice.items():
        low, high = summary.dice_ci95[count]
        surfaces = (f"{by_clicks[count]:.3f}" for by_clicks in (summary.nsd_2mm, summary.nsd_5mm))
        table.add_row(str(count), f"{dice:.3f}", f"{low:.3f}–{high:.3f}", *surfaces)
    console = Console()
    console.print(table)
    failed = f"{summary.failures['noc85']} of {summary.cases} not within {summary.noc_cap}"
    console.print(f"clicks to Dice 0.85: {summary.noc85:.1f} ({failed})")
    for count, best in (summary.dice_best_candidate or {}).items():
        first = (summary.dice_first_candidate or {})[count]
        console.print(f"candidates after {count}: best {best:.3f}, highest predicted Dice {first:.3f}")
    following = summary.seconds_next_click
    then = "" if following is None else f", next click {following:.2f} s"
    console.print(f"first click {summary.seconds_first_click:.2f} s{then} (medians)")
    typer.echo(f"wrote {out}")
