"""The learning curve of an app: accuracy after each training over the number of annotated cases."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sam3d_label.charts import AMBER, TEAL, add_legend, new_chart, plot_mean
from sam3d_label.evaluation.metrics import bootstrap_interval
from sam3d_label.io import locked, replacing, require_format
from sam3d_label.model_update.report import UpdateReport

TABLE, PICTURE = "learning_curve.csv", "learning_curve.png"
FORMAT = 1
COLUMNS = (
    *("at", "version", "published", "annotated", "compared", "left_out"),
    *("dice_1", "dice_1_low", "dice_1_high", "dice_5", "dice_5_low", "dice_5_high", "serving_dice_1", "serving_dice_5"),
    "format",
)


def append(folder: Path, report: UpdateReport) -> None:
    """Add the scores of an update to learning_curve.csv and redraw learning_curve.png.

    Dice is measured on cases that the new version was not trained on; `left_out` of the `compared` cases are training
    cases that were left out one by one, because the ledger has too few validation cases.

    Args:
        folder: Where the two files are.
        report: The report of the update.
    """
    row: dict[str, str | float | None] = {
        "at": report.at,
        "version": report.version,
        "published": int(report.gate is not None and report.gate.passes),
        "annotated": report.annotated,
        "compared": len(report.scores.candidate),
        "left_out": len(report.left_out_one_by_one),
        "format": FORMAT,
    }
    for metric in ("dice_1", "dice_5"):
        values = [getattr(each, metric) for each in report.scores.candidate]
        serving = [getattr(each, metric) for each in report.scores.serving]
        if values:
            low, high = bootstrap_interval(values)
            row |= {metric: float(np.mean(values)), f"{metric}_low": low, f"{metric}_high": high}
            row |= {f"serving_{metric}": float(np.mean(serving))}
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{TABLE}.lock"):
        rows: list[Mapping[str, str | float | None]] = [*read(folder), row]
        with replacing(folder / TABLE) as partial, partial.open("w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS, restval="")
            table.writeheader()
            table.writerows(rows)
        draw(folder / PICTURE, read(folder))


def read(folder: Path) -> list[dict[str, str]]:
    """Read the rows of learning_curve.csv, the earliest first; empty if there is no such file."""
    path = folder / TABLE
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        number = row.get("format") or ""
        require_format(int(number) if number.isdigit() else None, FORMAT, path)
    return rows


def draw(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Draw Dice after one and five clicks over annotated cases, hollow for rejected versions, as a PNG."""
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = new_chart()
    measured = [row for row in rows if row["dice_1"]]
    for metric, colour, name in (("dice_1", TEAL, "1 click"), ("dice_5", AMBER, "5 clicks")):
        at = [int(row["annotated"]) for row in measured]
        mean, low, high = ([float(row[f"{metric}{end}"]) for row in measured] for end in ("", "_low", "_high"))
        plot_mean(axes, at, mean, (low, high), color=colour, label=name)
        for row, x, y in zip(measured, at, mean, strict=True):
            face = colour if row["published"] == "1" else "white"
            axes.plot([x], [y], marker="o", markersize=6, markeredgecolor=colour, markerfacecolor=face)
    axes.set(xlabel="annotated cases", ylabel="Dice, cases that did not train", ylim=(0, 1.03))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if measured:
        add_legend(axes)
    with replacing(path) as partial:
        figure.savefig(partial)
