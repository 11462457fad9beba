"""The learning curve of an app: accuracy after each training over the number of annotated cases."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sam3d_label.charts import AMBER, TEAL, add_legend, new_chart, plot_mean
from sam3d_label.evaluation.metrics import bootstrap_interval
from sam3d_label.io import Record, locked, replacing
from sam3d_label.model_update.report import UpdateReport

TABLE, PICTURE = "learning_curve.csv", "learning_curve.png"


class CurveRow(Record):
    """What one training reached; None where the file has no value.

    Attributes:
        at: When the weights were compared, UTC, ISO 8601.
        version: Number of the new version.
        published: Whether it was activated at the end of the update.
        annotated: Number of usable cases.
        compared: Number of cases that it was compared on.
        left_out: How many of these are training cases that were left out one by one, because the ledger has too few
            validation cases yet.
        dice_1: Mean Dice after one click, on cases that did not train it; `_low` and `_high` are the ends of its
            bootstrap interval.
        dice_5: The same after five clicks.
        serving_dice_1: Mean Dice of the active version after one click, on the same cases.
        serving_dice_5: The same after five clicks.
        share: Share of the new weights in the version.
        reference_dice_1: Mean Dice after one click on the reference set.
        reference_dice_5: The same after five clicks.
    """

    at: str | None = None
    version: str | None = None
    published: bool = False
    annotated: int | None = None
    compared: int | None = None
    left_out: int | None = None
    dice_1: float | None = None
    dice_1_low: float | None = None
    dice_1_high: float | None = None
    dice_5: float | None = None
    dice_5_low: float | None = None
    dice_5_high: float | None = None
    serving_dice_1: float | None = None
    serving_dice_5: float | None = None
    share: float | None = None
    reference_dice_1: float | None = None
    reference_dice_5: float | None = None

    @classmethod
    def of(cls, report: UpdateReport) -> CurveRow:
        """Return the row of an update."""
        means: dict[str, float] = {}
        for metric in ("dice_1", "dice_5"):
            values = [getattr(each, metric) for each in report.scores.candidate]
            serving = [getattr(each, metric) for each in report.scores.serving]
            if values:
                low, high = bootstrap_interval(values)
                means |= {metric: float(np.mean(values)), f"{metric}_low": low, f"{metric}_high": high}
                means |= {f"serving_{metric}": float(np.mean(serving))}
            if report.reference and report.reference.scores:
                reference = [getattr(each, metric) for each in report.reference.scores]
                means |= {f"reference_{metric}": float(np.mean(reference))}
        return cls.model_validate(
            {
                "at": report.at,
                "version": report.version,
                "published": report.is_published,
                "annotated": report.annotated,
                "compared": len(report.scores.candidate),
                "left_out": len(report.left_out_one_by_one),
                "share": report.share,
                **means,
            }
        )

    @classmethod
    def of_cells(cls, cells: Mapping[str, str], path: Path) -> CurveRow:
        """Return the row that a line of the file holds.

        Raises:
            Sam3dError: It is damaged, or a newer release has written it.
        """
        values = {name: cell for name, cell in cells.items() if cell}
        number = values.pop("format", "")
        return cls.parse({**values, "format": int(number)} if number.isdigit() else values, path)

    def cells(self) -> dict[str, str]:
        """Return the row as text by column, empty where there is no value."""
        values = {**self.model_dump(), "published": int(self.published)}
        return {name: "" if value is None else str(value) for name, value in values.items()}


COLUMNS = (*(name for name in CurveRow.model_fields if name != "format"), "format")


def append(folder: Path, report: UpdateReport) -> None:
    """Add the scores of an update to learning_curve.csv and redraw learning_curve.png.

    Args:
        folder: Where the two files are.
        report: The report of the update.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{TABLE}.lock"):
        rows = [*read(folder), CurveRow.of(report)]
        with replacing(folder / TABLE) as partial, partial.open("w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(row.cells() for row in rows)
        draw(folder / PICTURE, rows)


def read(folder: Path) -> list[CurveRow]:
    """Return the rows of learning_curve.csv, the earliest first; none where there is no such file.

    Raises:
        Sam3dError: The file is damaged, or a newer release has written it.
    """
    path = folder / TABLE
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [CurveRow.of_cells(cells, path) for cells in csv.DictReader(file)]


def draw(path: Path, rows: Sequence[CurveRow]) -> None:
    """Draw Dice after one and five clicks over annotated cases as a PNG: hollow for versions that were not activated.

    Dashed lines are those on the reference set.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = new_chart()
    measured = [row for row in rows if row.dice_1 is not None]
    for metric, colour, name in (("dice_1", TEAL, "1 click"), ("dice_5", AMBER, "5 clicks")):
        at = [row.annotated or 0 for row in measured]
        mean, low, high = ([getattr(row, f"{metric}{end}") for row in measured] for end in ("", "_low", "_high"))
        plot_mean(axes, at, mean, (low, high), color=colour, label=name)
        for row, x, y in zip(measured, at, mean, strict=True):
            face = colour if row.published else "white"
            axes.plot([x], [y], marker="o", markersize=6, markeredgecolor=colour, markerfacecolor=face)
        kept = [(row.annotated or 0, getattr(row, f"reference_{metric}")) for row in measured if row.reference_dice_1]
        if kept:
            axes.plot(*zip(*kept, strict=True), color=colour, linestyle="--", label=f"{name}, reference set")
    axes.set(xlabel="annotated cases", ylabel="Dice, cases that did not train", ylim=(0, 1.03))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if measured:
        add_legend(axes)
    with replacing(path) as partial:
        figure.savefig(partial)
