"""An evaluation on disk: cases.csv, clicks.csv, summary.json, curve.png and worst.png."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from sam3d_label.charts import SLATE, TEAL, add_legend, new_chart, plot_mean, set_title
from sam3d_label.evaluation import metrics
from sam3d_label.evaluation.cohort import CaseResult, Cohort
from sam3d_label.evaluation.pictures import draw_sheet
from sam3d_label.evaluation.session import ClickRecord
from sam3d_label.io import replacing, write_json

CASE_COLUMNS = ("case", "clicks", "dice", "nsd_2mm", "nsd_5mm", "seconds", "placed", "honoured", "truth_ml")
CLICK_COLUMNS = ("case", "clicks", "dice", "seconds", "placed", "honoured", "i", "j", "k", "positive")
NSD_NAMES = tuple(f"nsd_{tolerance:g}mm" for tolerance in metrics.TOLERANCES_MM)


def write_report(
    out: Path, cohort: Cohort, clicks: Sequence[int], noc_cap: int, about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write everything of an evaluation into a folder.

    Args:
        out: folder, made when missing. ``cases.csv`` has a row for each case and each of ``clicks``;
            ``clicks.csv`` one for every click, with the voxel; ``summary.json`` is what this returns;
            ``curve.png`` shows Dice over clicks; ``worst.png`` the cases that the cohort kept slices of.
        cohort: at least one measured case.
        clicks: the click counts to report; 0 is the mask before the first click.
        noc_cap: clicks after which an annotator gives up; a failure counts as this many.
        about: further keys of the summary (annotator, seed, weights, command, …).

    Returns:
        The summary.

    Raises:
        OSError: the folder cannot be written.
    """
    summary = {**summarise(cohort, clicks, noc_cap), **(about or {})}
    with replacing(out / "cases.csv") as path:
        _write_csv(path, CASE_COLUMNS, _case_rows(cohort.results, clicks))
    with replacing(out / "clicks.csv") as path:
        _write_csv(path, CLICK_COLUMNS, _click_rows(cohort.results))
    with replacing(out / "curve.png") as path:
        draw_curve(path, cohort.results, clicks, title=_title(cohort, summary))
    if cohort.worst:
        draw_sheet(out / "worst.png", cohort.worst)
    write_json(out / "summary.json", summary)
    return summary


def summarise(cohort: Cohort, clicks: Sequence[int], noc_cap: int) -> dict[str, Any]:
    """Means over the cases, each case weighing the same.

    Returns:
        ``dice``, ``nsd_2mm``, ``nsd_5mm``: mean by click count (a string), and ``…_ci95`` its bootstrap
        interval, as for all means over cases. ``noc80``, ``noc85``, ``noc90``: mean clicks to reach that Dice, a
        failure counting as ``noc_cap``; ``failures`` counts them. ``auc``: of Dice over clicks 1–5, ``None`` with
        fewer clicks. ``seconds_no_click``, ``seconds_first_click``, ``seconds_next_click``: medians over requests,
        ``…_p95`` their 95th percentile, ``None`` without such requests. The mask before the first click enters
        ``dice``, ``nsd_…`` and ``seconds_no_click`` only. ``lowered_share``: of the clicks after the first, how
        many lower Dice by more than 0.01. ``honoured_share``: of all clicked voxels after every request, how many
        are on the side their click said. ``cases``: measured ones; ``skipped``: the others with the reason.
    """
    results = cohort.results
    unprompted = [result.unprompted.seconds for result in results if result.unprompted]
    first = _seconds(results, first=True)
    following = _seconds(results, first=False)
    areas = [area for result in results if (area := metrics.auc(result.dices)) is not None]
    return {
        "dice": {str(count): fmean(_dices(results, count)) for count in clicks},
        **{name: {str(n): fmean(_nsds(results, n, at)) for n in clicks} for at, name in enumerate(NSD_NAMES)},
        **_clicks_to_reach(results, noc_cap),
        "auc": fmean(areas) if areas else None,
        "seconds_first_click": _quantile(first, 0.5),
        "seconds_next_click": _quantile(following, 0.5),
        "cases": len(results),
        "dice_ci95": {str(count): _interval(_dices(results, count)) for count in clicks},
        **{
            f"{name}_ci95": {str(count): _interval(_nsds(results, count, at)) for count in clicks}
            for at, name in enumerate(NSD_NAMES)
        },
        "auc_ci95": _interval(areas) if areas else None,
        "seconds_no_click": _quantile(unprompted, 0.5),
        "seconds_no_click_p95": _quantile(unprompted, 0.95),
        "seconds_first_click_p95": _quantile(first, 0.95),
        "seconds_next_click_p95": _quantile(following, 0.95),
        "lowered_share": _lowered_share(results),
        "honoured_share": _honoured_share(results),
        "skipped": [{"case": skipped.case, "reason": skipped.reason} for skipped in cohort.skipped],
    }


def draw_curve(path: Path, results: Sequence[CaseResult], clicks: Sequence[int], *, title: str = "") -> None:
    """Mean Dice over clicks with its bootstrap interval, over a faint line for each case, as a PNG."""
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


def _title(cohort: Cohort, summary: Mapping[str, Any]) -> str:
    parts = [summary.get("annotator"), (summary.get("weights") or {}).get("name")]
    return " · ".join(["Dice over clicks", *(str(part) for part in parts if part), f"{len(cohort.results)} cases"])


def _case_rows(results: Iterable[CaseResult], clicks: Sequence[int]) -> Iterable[list[Any]]:
    for result in results:
        for count in clicks:
            record = result.after(count)
            surfaces = [f"{value:.6f}" for value in record.nsd or ()]
            yield [
                *(result.case, count, f"{record.dice:.6f}", *surfaces, f"{record.seconds:.4f}"),
                *(record.placed, record.honoured, f"{result.truth_ml:.3f}"),
            ]


def _click_rows(results: Iterable[CaseResult]) -> Iterable[list[Any]]:
    for result in results:
        for record in result.records:
            voxel = [*record.click.ijk, int(record.click.positive)] if record.click else [""] * 4
            yield [
                *(result.case, record.clicks, f"{record.dice:.6f}", f"{record.seconds:.4f}"),
                *(record.placed, record.honoured, *voxel),
            ]


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _dices(results: Sequence[CaseResult], count: int) -> list[float]:
    return [result.after(count).dice for result in results]


def _nsds(results: Sequence[CaseResult], count: int, at: int) -> list[float]:
    measured = (result.after(count).nsd for result in results)
    return [nsd[at] for nsd in measured if nsd is not None]


def _seconds(results: Sequence[CaseResult], *, first: bool) -> list[float]:
    requests = (record for record in _requests(results))
    return [record.seconds for record in requests if (record.clicks == 1) == first]


def _requests(results: Sequence[CaseResult]) -> Iterable[ClickRecord]:
    return (record for result in results for record in result.records if record.click is not None)


def _clicks_to_reach(results: Sequence[CaseResult], cap: int) -> dict[str, Any]:
    summary: dict[str, Any] = {"noc_cap": cap, "failures": {}}
    for target in metrics.NOC_TARGETS:
        name = f"noc{target * 100:.0f}"
        reached = [metrics.noc(result.dices, target, cap) for result in results]
        summary[name] = fmean(needed.clicks for needed in reached)
        summary[f"{name}_ci95"] = _interval([needed.clicks for needed in reached])
        summary["failures"][name] = sum(needed.failed for needed in reached)
    return summary


def _lowered_share(results: Sequence[CaseResult]) -> float | None:
    further = sum(record.clicks > 1 for record in _requests(results))
    return sum(metrics.lowered(result.dices) for result in results) / further if further else None


def _honoured_share(results: Sequence[CaseResult]) -> float | None:
    placed = sum(record.placed for record in _requests(results))
    return sum(record.honoured for record in _requests(results)) / placed if placed else None


def _quantile(values: Sequence[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if values else None


def _interval(values: Sequence[float]) -> list[float]:
    return list(metrics.bootstrap_interval(values))
