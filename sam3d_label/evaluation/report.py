"""An evaluation on disk: cases.csv, clicks.csv, candidates.csv, summary.json, curve.png and worst.png."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sam3d_label.charts import SLATE, TEAL, add_legend, new_chart, plot_mean, set_title
from sam3d_label.evaluation import metrics
from sam3d_label.evaluation.cohort import CaseResult, Cohort
from sam3d_label.evaluation.pictures import draw_sheet
from sam3d_label.evaluation.summary import Conditions, EvaluationSummary, summarise
from sam3d_label.io import replacing, write_record

CASE_COLUMNS = ("case", "clicks", "dice", "nsd_2mm", "nsd_5mm", "seconds", "placed", "honoured", "truth_ml")
CANDIDATE_COLUMNS = ("case", "clicks", "candidate", "predicted_dice", "dice", "answer_dice")
CLICK_COLUMNS = ("case", "clicks", "dice", "seconds", "placed", "honoured", "i", "j", "k", "positive")


def write_report(
    out: Path, cohort: Cohort, clicks: Sequence[int], noc_cap: int, conditions: Conditions | None = None
) -> EvaluationSummary:
    """Write everything of an evaluation into a folder.

    Args:
        out: folder, made when missing. ``cases.csv`` has a row for each case and each of ``clicks``;
            ``clicks.csv`` one for every click, with the voxel; ``summary.json`` is what this returns;
            ``candidates.csv``, if they were measured, has one for every candidate, highest predicted Dice first;
            ``curve.png`` shows Dice over clicks; ``worst.png`` the cases that the cohort kept slices of.
        cohort: at least one measured case.
        clicks: the click counts to report; 0 is the mask before the first click.
        noc_cap: clicks after which an annotator gives up; a failure counts as this many.
        conditions: how the evaluation was made.

    Returns:
        The summary.

    Raises:
        OSError: the folder cannot be written.
    """
    summary = summarise(cohort, clicks, noc_cap, conditions)
    with replacing(out / "cases.csv") as path:
        _write_csv(path, CASE_COLUMNS, _case_rows(cohort.results, clicks))
    with replacing(out / "clicks.csv") as path:
        _write_csv(path, CLICK_COLUMNS, _click_rows(cohort.results))
    if candidates := list(_candidate_rows(cohort.results)):
        with replacing(out / "candidates.csv") as path:
            _write_csv(path, CANDIDATE_COLUMNS, candidates)
    else:
        (out / "candidates.csv").unlink(missing_ok=True)  # of an evaluation that this one replaces
    with replacing(out / "curve.png") as path:
        draw_curve(path, cohort.results, clicks, title=_title(summary))
    if cohort.worst:
        draw_sheet(out / "worst.png", cohort.worst)
    write_record(out / "summary.json", summary)
    return summary


def draw_curve(path: Path, results: Sequence[CaseResult], clicks: Sequence[int], *, title: str = "") -> None:
    """Draw mean Dice over clicks with its bootstrap interval, over a faint line for each case, as a PNG."""
    counts = np.arange(0 if 0 in clicks else 1, len(results[0].records) + 1)
    values = np.array([[result.after(count).dice for count in counts] for result in results])
    mean = values.mean(axis=0)
    low, high = np.transpose([metrics.bootstrap_interval(column) for column in values.T])
    figure, (axes,) = new_chart()
    axes.plot(counts, values.T, color=SLATE, alpha=max(0.12, min(0.45, 4 / len(results))), linewidth=0.9)
    plot_mean(axes, counts, mean, (low, high), color=TEAL, label=f"mean of {len(results)} cases, 95 % interval")
    for count in clicks:
        value = mean[count - counts[0]]
        axes.plot(count, value, "o", color=TEAL, markersize=5)
        axes.annotate(
            f"{value:.2f}",
            (count, value),
            textcoords="offset points",
            xytext=(0, 8),
            ha="center",
            fontsize=9,
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
        )
    axes.set(xlabel="clicks", ylabel="Dice", ylim=(0, 1.03), xlim=(counts[0] - 0.4, counts[-1] + 0.4), xticks=counts)
    set_title(axes, title)
    add_legend(axes)
    figure.savefig(path)


def _title(summary: EvaluationSummary) -> str:
    weights = summary.weights.name if summary.weights else None
    return " · ".join(filter(None, ["Dice over clicks", summary.annotator, weights, f"{summary.cases} cases"]))


def _case_rows(results: Iterable[CaseResult], clicks: Sequence[int]) -> Iterable[list[object]]:
    for result in results:
        for count in clicks:
            record = result.after(count)
            surfaces = [f"{value:.6f}" for value in record.nsd or ()]
            yield [
                *(result.case, count, f"{record.dice:.6f}", *surfaces, f"{record.seconds:.4f}"),
                *(record.placed, record.honoured, f"{result.truth_ml:.3f}"),
            ]


def _click_rows(results: Iterable[CaseResult]) -> Iterable[list[object]]:
    for result in results:
        for record in result.records:
            voxel = [*record.click.ijk, int(record.click.positive)] if record.click else [""] * 4
            yield [
                *(result.case, record.clicks, f"{record.dice:.6f}", f"{record.seconds:.4f}"),
                *(record.placed, record.honoured, *voxel),
            ]


def _candidate_rows(results: Iterable[CaseResult]) -> Iterable[list[object]]:
    for result in results:
        for record in result.records:
            for number, score in enumerate(record.candidates, start=1):
                dices = (score.predicted_dice, score.dice, record.dice)
                yield [result.case, record.clicks, number, *(f"{dice:.6f}" for dice in dices)]


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
