"""What a replay shows, in numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from sam3d_label.evaluation import metrics
from sam3d_label.replay.request import Row


def summarise(rows: Sequence[Row], requests: int) -> dict[str, Any]:
    """Return counts and means over the completed requests.

    Args:
        rows: In the order of the log.
        requests: How many the log has.

    Returns:
        ``requests``, ``done``, ``complete``; ``replayed``, and ``skipped`` by reason; ``measured`` against a saved
        label, and ``notes`` on what was not. ``dice``, ``nsd_2mm``, ``nsd_5mm``: means over the measured requests,
        ``dice_ci95`` the bootstrap interval with images drawn. ``dice_last``: mean over images and labels of the last
        request on each. ``by_clicks``: by the number of clicks, requests with a box apart. ``same_mask_share``: of
        the masks that were served, how many are the same now. ``agreement``: mean Dice with what was served, over
        the ``compared`` ones. ``honoured_share``: of all clicked voxels, how many are on the side their click said.
        ``seconds``, ``served_seconds``: medians, ``…_p95`` the 95th percentile. None without such requests.
    """
    replayed = [row for row in rows if row.skipped is None]
    measured = [row for row in replayed if row.dice is not None]
    clicks = sum(row.inside + row.outside for row in replayed)
    last = {(row.image, row.label, row.model): row for row in measured}
    return {
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
        **_times("seconds", [row.seconds for row in replayed if row.seconds is not None]),
        **_times("served_seconds", [row.served_seconds for row in replayed if row.served_version]),
    }


def _means(rows: Sequence[Row]) -> dict[str, float | None]:
    return {name: _mean(getattr(row, name) for row in rows) for name in ("dice", "nsd_2mm", "nsd_5mm")}


def _by_clicks(rows: Iterable[Row]) -> dict[str, Any]:
    groups: dict[tuple[bool, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.boxes > 0, 0 if row.boxes else row.inside + row.outside].append(row)
    return {
        "box" if with_box else str(count): {"requests": len(group), **_means(group)}
        for (with_box, count), group in sorted(groups.items())
    }


def _interval(rows: Sequence[Row]) -> list[float] | None:
    """Of mean Dice, images being drawn: requests on one image are not independent."""
    by_image: dict[str | None, list[float]] = defaultdict(list)
    for row in rows:
        by_image[row.image].append(row.dice or 0.0)
    return list(metrics.bootstrap_interval([fmean(dices) for dices in by_image.values()])) if by_image else None


def _times(name: str, seconds: Sequence[float]) -> dict[str, float | None]:
    shares = {name: 0.5, f"{name}_p95": 0.95}
    return {key: float(np.quantile(seconds, share)) if seconds else None for key, share in shares.items()}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else None


def _counted(reasons: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(reason for reason in reasons if reason is not None).most_common())
