"""The summary of an evaluation: means over its cases, and how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from sam3d_label.evaluation import metrics
from sam3d_label.evaluation.cohort import CaseResult, Cohort
from sam3d_label.evaluation.session import ClickRecord
from sam3d_label.io import Record, RecordPart

Interval = tuple[float, float]
"""A bootstrap 95 % interval."""


class WeightsName(RecordPart):
    """The evaluated weights: the name that was given for them, and their version."""

    name: str | None = None
    version: str | None = None


class SkippedCase(RecordPart):
    """A case that could not be measured, and why."""

    case: str
    reason: str


class Conditions(Record):
    """How an evaluation was made; None where the caller does not say.

    Attributes:
        annotator: Name of the simulated annotator.
        seed: Seed of its randomness.
        clicks: Click counts that are reported.
        weights: The evaluated weights.
        device: Device of the network.
        peak_memory_mib: Peak of main memory of the process.
        peak_device_memory_mib: Peak of memory of tensors on a CUDA device.
        command: The command line.
    """

    annotator: str | None = None
    seed: int | None = None
    clicks: list[int] | None = None
    weights: WeightsName | None = None
    device: str | None = None
    peak_memory_mib: float | None = None
    peak_device_memory_mib: float | None = None
    command: str | None = None


class EvaluationSummary(Conditions):
    """Means over the cases, each case weighing the same; they are None where nothing was measured.

    A name that ends in `ci95` is the bootstrap interval of the mean, one that ends in `p95` the 95th percentile.

    Attributes:
        dice: Mean Dice by click count.
        dice_best_candidate: Mean Dice of the best of the mask and the candidates of each case, by click count; None if
            candidates were not measured.
        dice_first_candidate: The same of the candidate with the highest predicted Dice.
        nsd_2mm: Mean surface Dice at 2 mm by click count.
        nsd_5mm: Mean surface Dice at 5 mm by click count.
        noc_cap: Clicks after which the annotator gave up.
        noc80: Mean clicks to reach a Dice of 0.80, a failure counting as `noc_cap`.
        noc85: The same for 0.85.
        noc90: The same for 0.90.
        failures: Number of cases that did not reach it, by `noc80`, `noc85` and `noc90`.
        auc: Area under Dice over clicks 1 to 5; None with fewer clicks.
        seconds_no_click: Median over the requests before the first click.
        seconds_first_click: Median over the requests with one click.
        seconds_next_click: Median over the requests with more clicks.
        lowered_share: Of the clicks after the first, the share that lowers Dice by more than 0.01.
        honoured_share: Of all clicked voxels after every request, the share on the side of the mask that their click
            asked for. The mask before the first click does not count here.
        cases: Number of measured cases.
        skipped: The other cases.
    """

    dice: dict[int, float]
    nsd_2mm: dict[int, float]
    nsd_5mm: dict[int, float]
    noc_cap: int
    noc80: float
    noc85: float
    noc90: float
    failures: dict[str, int]
    auc: float | None
    seconds_no_click: float | None
    seconds_first_click: float | None
    seconds_next_click: float | None
    lowered_share: float | None
    honoured_share: float | None
    cases: int
    skipped: list[SkippedCase]
    dice_ci95: dict[int, Interval]
    nsd_2mm_ci95: dict[int, Interval]
    nsd_5mm_ci95: dict[int, Interval]
    noc80_ci95: Interval
    noc85_ci95: Interval
    noc90_ci95: Interval
    auc_ci95: Interval | None
    dice_best_candidate: dict[int, float] | None = None
    dice_first_candidate: dict[int, float] | None = None
    seconds_no_click_p95: float | None
    seconds_first_click_p95: float | None
    seconds_next_click_p95: float | None


def summarise(
    cohort: Cohort, clicks: Sequence[int], noc_cap: int, conditions: Conditions | None = None
) -> EvaluationSummary:
    """Return the summary of an evaluation.

    Args:
        cohort: At least one measured case.
        clicks: The click counts to report; 0 is the mask before the first click.
        noc_cap: Clicks after which the annotator gives up.
        conditions: How the evaluation was made.
    """
    results = cohort.results
    areas = [area for result in results if (area := metrics.auc(result.dices)) is not None]
    return EvaluationSummary.model_validate(
        {
            **(conditions or Conditions()).model_dump(),
            **_by_clicks("dice", {count: [result.after(count).dice for result in results] for count in clicks}),
            **_by_clicks("nsd_2mm", {count: _nsds(results, count, 0) for count in clicks}),
            **_by_clicks("nsd_5mm", {count: _nsds(results, count, 1) for count in clicks}),
            **_candidate_dices(results, clicks),
            **_clicks_to_reach(results, noc_cap),
            "auc": fmean(areas) if areas else None,
            "auc_ci95": metrics.bootstrap_interval(areas) if areas else None,
            **metrics.median_and_p95(
                "seconds_no_click", [result.unprompted.seconds for result in results if result.unprompted]
            ),
            **metrics.median_and_p95(
                "seconds_first_click", [each.seconds for each in _requests(results) if each.clicks == 1]
            ),
            **metrics.median_and_p95(
                "seconds_next_click", [each.seconds for each in _requests(results) if each.clicks != 1]
            ),
            "lowered_share": _lowered_share(results),
            "honoured_share": _honoured_share(results),
            "cases": len(results),
            "skipped": [{"case": skipped.case, "reason": skipped.reason} for skipped in cohort.skipped],
        }
    )


def _by_clicks(name: str, values: Mapping[int, Sequence[float]]) -> dict[str, object]:
    """Return mean and interval for each click count."""
    return {
        name: {count: fmean(each) for count, each in values.items()},
        f"{name}_ci95": {count: metrics.bootstrap_interval(each) for count, each in values.items()},
    }


def _candidate_dices(results: Sequence[CaseResult], clicks: Sequence[int]) -> dict[str, object]:
    best: dict[int, float] = {}
    first: dict[int, float] = {}
    for count in clicks:
        records = [record for result in results if (record := result.after(count)).candidates]
        if records:
            best[count] = fmean(max(record.dice, *(score.dice for score in record.candidates)) for record in records)
            first[count] = fmean(record.candidates[0].dice for record in records)
    return {"dice_best_candidate": best, "dice_first_candidate": first} if best else {}


def _nsds(results: Sequence[CaseResult], count: int, tolerance: int) -> list[float]:
    measured = (result.after(count).nsd for result in results)
    return [nsd[tolerance] for nsd in measured if nsd is not None]


def _clicks_to_reach(results: Sequence[CaseResult], cap: int) -> dict[str, object]:
    found: dict[str, object] = {"noc_cap": cap}
    failures = {}
    for target in metrics.NOC_TARGETS:
        name = f"noc{target * 100:.0f}"
        needed = [metrics.noc(result.dices, target, cap) for result in results]
        clicks = [each.clicks for each in needed]
        found |= {name: fmean(clicks), f"{name}_ci95": metrics.bootstrap_interval(clicks)}
        failures[name] = sum(each.failed for each in needed)
    return {**found, "failures": failures}


def _requests(results: Sequence[CaseResult]) -> Iterable[ClickRecord]:
    """Return the requests with a click."""
    return (record for result in results for record in result.records if record.click is not None)


def _lowered_share(results: Sequence[CaseResult]) -> float | None:
    further = sum(record.clicks > 1 for record in _requests(results))
    return sum(metrics.count_lowered(result.dices) for result in results) / further if further else None


def _honoured_share(results: Sequence[CaseResult]) -> float | None:
    placed = sum(record.placed for record in _requests(results))
    return sum(record.honoured for record in _requests(results)) / placed if placed else None
