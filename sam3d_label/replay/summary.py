"""The summary of a replay: what was replayed, and how well the masks agree with labels and original masks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from sam3d_label.evaluation import metrics
from sam3d_label.evaluation.summary import Interval
from sam3d_label.io import Record, RecordPart
from sam3d_label.replay.request import ReplayRow


class WeightsIdentity(RecordPart):
    """Version of some weights, and a digest of their content."""

    version: str
    signature: str


class ReplayedWeights(WeightsIdentity):
    """The weights of a replay, with the name or path that was given for them; None for the shipped default."""

    name: str | None = None


class Means(RecordPart):
    """Means over measured requests; None without any."""

    dice: float | None
    nsd_2mm: float | None
    nsd_5mm: float | None


class MeansOfGroup(Means):
    """Means over some of the requests, and how many they are."""

    requests: int


class Conditions(Record):
    """How a replay was made.

    Attributes:
        weights: The weights that answered the requests.
        tag: Tag of the labels that the masks were compared with.
        command: The command line; None where the caller does not give it.
    """

    weights: ReplayedWeights
    tag: str
    command: str | None = None


class ReplaySummary(Conditions, Means):
    """Counts and means over the requests that are done; None without such requests.

    A name that ends in `ci95` is the bootstrap interval of the mean, with images drawn; one that ends in `p95` is the
    95th percentile.

    Attributes:
        requests: Number of requests in the log.
        done: Number of requests that are done.
        complete: Whether all are done.
        replayed: Number of requests that could be replayed.
        skipped: Number of the others by reason.
        measured: Number of requests that were compared with a saved label.
        notes: Number of requests by the reason why something could not be compared.
        images: Number of images.
        dice_last: Mean over images and labels of the last request on each.
        by_clicks: Means by the number of clicks; requests with a box are under `box`.
        same_mask_share: Of the original masks, the share that is the same now.
        compared: Number of masks that were compared with the original one.
        agreement: Mean Dice with the original masks.
        honoured_share: Of all clicked voxels, the share on the side of the mask that their click asked for.
        seconds: Median until a mask was there.
        served_seconds: Median until the original request was answered.
    """

    requests: int
    done: int
    complete: bool
    replayed: int
    skipped: dict[str, int]
    measured: int
    notes: dict[str, int]
    images: int
    dice_ci95: Interval | None
    dice_last: float | None
    dice_last_ci95: Interval | None
    by_clicks: dict[str, MeansOfGroup]
    same_mask_share: float | None
    compared: int
    agreement: float | None
    honoured_share: float | None
    seconds: float | None
    seconds_p95: float | None
    served_seconds: float | None
    served_seconds_p95: float | None


def summarise(rows: Sequence[ReplayRow], requests: int, conditions: Conditions) -> ReplaySummary:
    """Return the summary of a replay.

    Args:
        rows: The results so far, in the order of the log.
        requests: Number of requests in the log.
        conditions: How the replay is made.
    """
    replayed = [row for row in rows if row.skipped is None]
    measured = [row for row in replayed if row.dice is not None]
    clicks = sum(row.inside + row.outside for row in replayed)
    last = {(row.image, row.label, row.model): row for row in measured}
    return ReplaySummary.model_validate(
        {
            **conditions.model_dump(),
            "requests": requests,
            "done": len(rows),
            "complete": len(rows) == requests,
            "replayed": len(replayed),
            "skipped": _counted(row.skipped for row in rows),
            "measured": len(measured),
            "notes": _counted(row.note for row in replayed),
            "images": len({row.image for row in replayed}),
            **_means(measured),
            "dice_ci95": _interval(measured),
            "dice_last": _mean(row.dice for row in last.values()),
            "dice_last_ci95": _interval(list(last.values())),
            "by_clicks": _by_clicks(measured),
            "same_mask_share": _mean(row.same_mask for row in replayed),
            "compared": sum(row.agreement is not None for row in replayed),
            "agreement": _mean(row.agreement for row in replayed),
            "honoured_share": sum(row.honoured or 0 for row in replayed) / clicks if clicks else None,
            **metrics.median_and_p95("seconds", [row.seconds for row in replayed if row.seconds is not None]),
            **metrics.median_and_p95("served_seconds", [row.served_seconds for row in replayed if row.served_version]),
        }
    )


def _means(rows: Sequence[ReplayRow]) -> dict[str, float | None]:
    return {name: _mean(getattr(row, name) for row in rows) for name in Means.model_fields}


def _by_clicks(rows: Iterable[ReplayRow]) -> dict[str, MeansOfGroup]:
    groups: dict[tuple[bool, int], list[ReplayRow]] = defaultdict(list)
    for row in rows:
        groups[row.boxes > 0, 0 if row.boxes else row.inside + row.outside].append(row)
    return {
        "box" if with_box else str(count): MeansOfGroup.model_validate({"requests": len(group), **_means(group)})
        for (with_box, count), group in sorted(groups.items())
    }


def _interval(rows: Sequence[ReplayRow]) -> Interval | None:
    """Return the interval of mean Dice by resampling images: requests on one image are not independent."""
    by_image: dict[str | None, list[float]] = defaultdict(list)
    for row in rows:
        by_image[row.image].append(row.dice or 0.0)
    return metrics.bootstrap_interval([fmean(dices) for dices in by_image.values()]) if by_image else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else None


def _counted(reasons: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(reason for reason in reasons if reason is not None).most_common())
