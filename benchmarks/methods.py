"""Compare methods on the same cases, with the same annotator and seed.

    python benchmarks/methods.py IMAGES LABELS OUT --unet CKPT [--cases GLOB] [--methods sam3d,unet,random_walker]

`sam3d` is the shipped `tiny` or the one of --weights, `one_pass` the same network under all clicks at once, of which
none opens, `unet` the network of `click_unet.py`; `random_walker` needs no training. Where an annotator clicks depends
on the mask, so the clicks differ from method to method. OUT holds methods.json, a summary for each method, and
methods.png, Dice over clicks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from random_walker import RandomWalker
from rich.console import Console
from rich.status import Status
from rich.table import Table

from sam3d_label.charts import AMBER, INDIGO, SLATE, TEAL, add_legend, new_chart, plot_mean, set_title
from sam3d_label.evaluation.annotators import ANNOTATORS
from sam3d_label.evaluation.cohort import Cohort, evaluate_cohort
from sam3d_label.evaluation.metrics import bootstrap_interval
from sam3d_label.evaluation.session import PromptableSegmenter
from sam3d_label.evaluation.summary import EvaluationSummary, summarise
from sam3d_label.image.volume import Volume
from sam3d_label.io import replacing, write_json
from sam3d_label.segmentation.segmenter import Segmenter
from sam3d_label.weights import Weights, open_weights

Open = Callable[[Volume], PromptableSegmenter]
METHODS = ("sam3d", "unet", "random_walker", "one_pass")
COLOURS = {"sam3d": TEAL, "unet": AMBER, "random_walker": INDIGO, "one_pass": SLATE}


def opener(method: str, unet: Path | None, weights: str | None = None) -> Open:
    """Return a function that opens a volume with a method; BadParameter if it is unknown or lacks its checkpoint."""
    if method == "random_walker":
        return RandomWalker
    if method in ("sam3d", "one_pass"):
        return with_weights(open_weights(weights), two_pass=method == "sam3d")
    if method == "unet" and unet is not None:
        from click_unet import open_unet

        return with_weights(open_unet(unet))
    raise typer.BadParameter(
        "unet needs --unet CKPT" if method == "unet" else f"{method}: choose from {', '.join(METHODS)}"
    )


def with_weights(weights: Weights, *, two_pass: bool = True) -> Callable[[Volume], Segmenter]:
    """Return a function that opens segmenters, which share weights only."""
    return lambda volume: Segmenter(volume, weights, two_pass=two_pass)


def common_cases(cohorts: Mapping[str, Cohort]) -> dict[str, Cohort]:
    """Restrict the cohorts to the cases that were measured with every method."""
    measured = set.intersection(*({result.case for result in cohort.results} for cohort in cohorts.values()))
    return {
        method: Cohort([result for result in cohort.results if result.case in measured], cohort.skipped)
        for method, cohort in cohorts.items()
    }


def curve(cohort: Cohort) -> list[list[float]]:
    """Return the mean Dice after each click from 1 on, with the lower and upper end of its 95 % interval."""
    after = zip(*(result.dices for result in cohort.results), strict=True)
    return [[float(np.mean(dices)), *bootstrap_interval(dices)] for dices in after]


def draw(path: Path, curves: Mapping[str, Sequence[Sequence[float]]], title: str) -> None:
    """Draw a line for each method with the interval of its mean, as a PNG."""
    figure, (axes,) = new_chart()
    for method, points in curves.items():
        clicks = np.arange(1, len(points) + 1)
        mean, low, high = np.transpose(points)
        plot_mean(axes, clicks, mean, (low, high), color=COLOURS[method], marker="o", label=method)
    axes.set(xlabel="clicks", ylabel="Dice", ylim=(0, 1.03), xticks=clicks)
    set_title(axes, title)
    add_legend(axes)
    with replacing(path) as partial:
        figure.savefig(partial)


def table(summaries: Mapping[str, EvaluationSummary], counts: Sequence[int], title: str) -> Table:
    """Format a column for each method and a row for each metric; seconds are medians."""
    shown = Table("", title=title, title_justify="left")
    for method in summaries:
        shown.add_column(method, justify="right")
    for key, name in (("dice", "Dice"), ("nsd_2mm", "NSD 2 mm")):
        for count in counts:
            means = (getattr(summary, key)[count] for summary in summaries.values())
            shown.add_row(f"{name} @ {count}", *(f"{mean:.3f}" for mean in means))
    for key, name in (("lowered_share", "clicks that lower Dice"), ("honoured_share", "clicks honoured")):
        shares = (getattr(summary, key) for summary in summaries.values())
        shown.add_row(name, *("–" if share is None else f"{share:.1%}" for share in shares))
    for key, name in (("seconds_first_click", "first click"), ("seconds_next_click", "next click")):
        seconds = (getattr(summary, key) for summary in summaries.values())
        shown.add_row(name, *("–" if each is None else f"{each:.2f} s" for each in seconds))
    return shown


def show(status: Status, method: str, case: str, done: int, total: int) -> None:
    """Show how far a method is."""
    status.update(f"{method} {done}/{total} {case}")


def main(
    images: Annotated[Path, typer.Argument(help="Folder of volumes.")],
    labels: Annotated[Path, typer.Argument(help="Folder of labels with the images' names.")],
    out: Annotated[Path, typer.Argument(help="Folder for methods.json and methods.png.")],
    unet: Annotated[Path | None, typer.Option(help="Checkpoint of click_unet.py.")] = None,
    weights: Annotated[str | None, typer.Option(help="Of sam3d: a file, or the name of shipped ones.")] = None,
    cases: Annotated[str | None, typer.Option(help="Only the files that match; several globs by commas.")] = None,
    label: Annotated[int | None, typer.Option(help="Value of the target; any but 0 without it.")] = None,
    annotator: Annotated[str, typer.Option(help=f"One of {', '.join(ANNOTATORS)}.")] = "error_centre",
    seed: int = 0,
    clicks: Annotated[str, typer.Option(help="Click counts to report, from 1 on.")] = "1,3,5,10",
    methods: str = ",".join(METHODS[:3]),
) -> None:
    """Measure each method on every case, print a table, write the numbers and a picture."""
    if annotator not in ANNOTATORS:
        raise typer.BadParameter(f"{annotator}: choose from {', '.join(ANNOTATORS)}")
    counts = sorted({int(count) for count in clicks.split(",")})
    if counts[0] < 1:
        raise typer.BadParameter(f"--clicks {clicks}: give counts from 1 on")
    openers = {method: opener(method, unet, weights) for method in methods.split(",")}
    console = Console(stderr=True)
    cohorts = {}
    for method, segmenter in openers.items():
        with console.status(method) as status:
            cohorts[method] = evaluate_cohort(
                images,
                labels,
                segmenter,
                ANNOTATORS[annotator],
                label=label,
                clicks=counts,
                seed=seed,
                cases=cases,
                worst=0,
                progress=partial(show, status, method),
            )
    cohorts = common_cases(cohorts)
    for method, cohort in cohorts.items():
        for skipped in cohort.skipped:
            console.print(f"{method} skipped {skipped.case}: {skipped.reason}", highlight=False, soft_wrap=True)
    measured = len(next(iter(cohorts.values())).results)
    if not measured:
        raise typer.BadParameter(f"no case in {images} could be measured by every method")
    summaries = {method: summarise(cohort, counts, counts[-1]) for method, cohort in cohorts.items()}
    curves = {method: curve(cohort) for method, cohort in cohorts.items()}
    title = f"{measured} cases · {annotator}"
    write_json(
        out / "methods.json",
        {
            "annotator": annotator,
            "seed": seed,
            "cases": [result.case for result in next(iter(cohorts.values())).results],
            "methods": {
                method: {**summary.model_dump(mode="json"), "curve": curves[method]}
                for method, summary in summaries.items()
            },
        },
    )
    draw(out / "methods.png", curves, f"Dice over clicks · {title}")
    Console().print(table(summaries, counts, title))


if __name__ == "__main__":
    typer.run(main)
