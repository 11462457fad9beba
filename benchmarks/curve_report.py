"""Points of a learning curve as files, and their table and picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import ScalarFormatter
from rich.console import Console
from rich.table import Table

from sam3d_label.charts import AMBER, INDIGO, ROSE, SLATE, TEAL, add_legend, new_chart, plot_mean, set_title
from sam3d_label.evaluation.metrics import bootstrap_interval
from sam3d_label.io import replacing, write_json

UNET, UNET_SAME_CROPS = "unet", "unet_same_crops"
UNETS = (UNET, UNET_SAME_CROPS)
COLOURS = {
    "random": TEAL,
    "first": SLATE,
    "uncertainty": ROSE,
    "diverse": INDIGO,
    UNET: AMBER,
    UNET_SAME_CROPS: SLATE,
}
UNET_NAMES = {UNET: "DynUNet with click channels", UNET_SAME_CROPS: "the same, as many crops as SAM3D"}
METRICS = {"dice_1": "Dice, 1 click", "dice_3": "Dice, 3 clicks", "dice_5": "Dice, 5 clicks", "noc85": "clicks to 0.85"}
OVER = "paired to random, 1 click"
COLUMNS = ("arm", "seed", "annotated", "case", *METRICS, "steps", "seconds")


def write_point(
    path: Path,
    point: Mapping[str, object],
    scores: Mapping[str, Mapping[str, float]],
) -> None:
    """Write a row for each held-out case.

    Args:
        path: The file.
        point: Values of the columns that all rows share.
        scores: Of each case by name, the metrics.
    """
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for case, measured in scores.items():
            table.writerow({**point, "case": case, **{metric: f"{measured[metric]:.4f}" for metric in METRICS}})


def read_points(out: Path) -> list[dict[str, str]]:
    """Read the rows of all points."""
    rows: list[dict[str, str]] = []
    for path in sorted((out / "points").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows += csv.DictReader(file)
    return rows


def summarise(rows: Sequence[Mapping[str, str]]) -> dict[str, list[dict[str, Any]]]:
    """Return, by arm and number of annotated cases, the mean over held-out cases and seeds and its 95 % interval.

    `dice_1_over_random` is that of the difference to the strategy `random` on the same cases, where that was measured.
    """
    arms: dict[str, list[dict[str, Any]]] = {}
    random = [row for row in rows if row["arm"] == "random"]
    start = [row for row in rows if row["arm"] == "start"]
    for arm in [arm for arm in COLOURS if any(row["arm"] == arm for row in rows)]:
        own = [*([] if arm in UNETS else start), *(row for row in rows if row["arm"] == arm)]
        arms[arm] = [
            _summary(own, [] if arm == "random" else random, size)
            for size in sorted({int(row["annotated"]) for row in own})
        ]
    return arms


def _summary(rows: Sequence[Mapping[str, str]], random: Sequence[Mapping[str, str]], size: int) -> dict[str, Any]:
    at = [row for row in rows if int(row["annotated"]) == size]
    seeds = {row["seed"] for row in at}
    summary: dict[str, Any] = {"annotated": size, "cases": len({row["case"] for row in at}), "seeds": len(seeds)}
    summary["seconds"] = float(np.mean([float(row["seconds"]) for row in at]))
    for metric in METRICS:
        summary[metric] = _mean_and_interval(list(_by_case(at, metric).values()))
    at_random = _by_case([row for row in random if int(row["annotated"]) == size], "dice_1")
    if at_random:
        over = [dice - at_random[case] for case, dice in _by_case(at, "dice_1").items()]
        summary["dice_1_over_random"] = _mean_and_interval(over)
    return summary


def _by_case(rows: Sequence[Mapping[str, str]], metric: str) -> dict[str, float]:
    """Return the mean of a metric over seeds, by held-out case."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["case"], []).append(float(row[metric]))
    return {case: float(np.mean(values[case])) for case in sorted(values)}


def _mean_and_interval(values: Sequence[float]) -> list[float]:
    return [float(np.mean(values)), *bootstrap_interval(values)]


def draw(path: Path, arms: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> None:
    """Draw Dice after one and five clicks over annotated cases, with the interval of each mean, as a PNG."""
    figure, panels = new_chart(2, sharey=True)
    for axes, metric in zip(panels, ("dice_1", "dice_5"), strict=True):
        for arm, points in arms.items():
            at = [point["annotated"] for point in points]
            mean, low, high = np.transpose([point[metric] for point in points])
            name = UNET_NAMES.get(arm, f"SAM3D, {arm}")
            plot_mean(axes, at, mean, (low, high), color=COLOURS[arm], marker="o", label=name)
        axes.set_xscale("symlog", linthresh=1)
        ticks = sorted({point["annotated"] for points in arms.values() for point in points})
        axes.set_xticks(ticks)
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set(xlabel="annotated cases", ylim=(0, 1))
        set_title(axes, METRICS[metric])
        add_legend(axes)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    with replacing(path) as partial:
        figure.savefig(partial)


def table(arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Format the numbers as a table."""
    shown = Table("arm", "annotated", "held out", "seeds", "seconds", *METRICS.values(), OVER)
    for arm, points in arms.items():
        for point in points:
            cells = ("{:.3f} ({:.2f}–{:.2f})".format(*point[metric]) for metric in METRICS)
            counts = (*(str(point[key]) for key in ("annotated", "cases", "seeds")), f"{point['seconds']:.0f}")
            over = point.get("dice_1_over_random")
            shown.add_row(arm, *counts, *cells, "{:+.3f} ({:+.3f} to {:+.3f})".format(*over) if over else "")
    return shown


def conclude(out: Path, version: str, minutes: float) -> None:
    """Write table, numbers and picture of all points."""
    rows = read_points(out)
    with replacing(out / "learning_curve.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    arms = summarise(rows)
    write_json(out / "learning_curve.json", {"weights": version, "minutes": minutes, "arms": arms})
    cases = max(point["cases"] for points in arms.values() for point in points)
    title = f"{cases} cases that never train · about {minutes:g} minutes an update on the CPU · started from {version}"
    draw(out / "learning_curve.png", arms, title)
    Console().print(table(arms))
