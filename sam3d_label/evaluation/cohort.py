"""Sessions on every case of a folder; one volume is in memory at a time."""

from __future__ import annotations

import zlib
from bisect import insort
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np

from sam3d_label.errors import Sam3dError
from sam3d_label.evaluation.annotators import Annotator, BoolVolume
from sam3d_label.evaluation.cases import find_cases, read_case
from sam3d_label.evaluation.pictures import SheetRow, sheet_row
from sam3d_label.evaluation.session import (
    CLICK_COUNTS,
    ClickRecord,
    PromptableSegmenter,
    evaluate_case,
    evaluate_unprompted,
)
from sam3d_label.image.volume import Volume

WORST = 8
"""Cases on a contact sheet."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CaseResult:
    """The session on one case.

    Attributes:
        case: its name.
        truth_ml: volume of the target.
        records: for each click from 1 on.
        unprompted: before the first click; ``None`` if it was not requested.
    """

    case: str
    truth_ml: float
    records: tuple[ClickRecord, ...]
    unprompted: ClickRecord | None = None

    @property
    def dices(self) -> list[float]:
        """Dice after each click from 1 on."""
        return [record.dice for record in self.records]

    def after(self, clicks: int) -> ClickRecord:
        """Return the record of a click count that was measured.

        Raises:
            LookupError: it was not.
        """
        if clicks > 0:
            return self.records[clicks - 1]
        if self.unprompted is None:
            raise LookupError(f"{self.case} was not segmented without a click")
        return self.unprompted


@dataclass(frozen=True)
class Skipped:
    """A case that could not be measured, and why."""

    case: str
    reason: str


@dataclass
class Cohort:
    """Every case of an evaluation, measured or skipped.

    Attributes:
        results: the measured ones.
        skipped: the others.
        worst: what a contact sheet draws of those with the lowest Dice at the last click count, worst first.
    """

    results: list[CaseResult] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    worst: list[SheetRow] = field(default_factory=list)


def evaluate_cohort(
    images: Path,
    labels: Path,
    open_segmenter: Callable[[Volume], PromptableSegmenter],
    annotator: Annotator,
    *,
    label: int | None = None,
    clicks: Sequence[int] = CLICK_COUNTS,
    last: int | None = None,
    seed: int = 0,
    cases: str | None = None,
    candidates: bool = False,
    worst: int = WORST,
    progress: Progress | None = None,
    clicked: Callable[[int, int], None] | None = None,
) -> Cohort:
    """Click on every case of a folder.

    Args:
        images: a folder of volumes (files, or DICOM folders), or one file.
        labels: a folder of label files with the names of the images, or one file.
        open_segmenter: opens a volume with the model; called once for each case, and again for 0 clicks, so
            that neither request uses the cache of the other.
        annotator: who clicks; the first click answers an empty mask, also where 0 clicks are measured.
        label: the value in the label files that is the target (default: every non-zero one).
        clicks: the click counts at which surfaces are compared too, at least one positive; with 0, the mask
            without a click is measured.
        last: click on to this count (default: the largest of ``clicks``).
        seed: of the annotator's randomness; each case uses this seed and its name, independent of the others.
        cases: a glob that a file name, or a case name, must match.
        candidates: measure the candidates of the model too, at each of ``clicks``.
        worst: of how many cases, those with the lowest Dice at the largest of ``clicks``, a slice is kept.
        progress: called with (case, cases done, cases in all) before each case, and once at the end.
        clicked: called after each click of a case with (clicks done, clicks of a case).

    Returns:
        The sessions, and the cases that could not be measured (unreadable, misaligned, empty, or rejected by the
        segmenter) with the reason.

    Raises:
        Sam3dError: a folder is missing or holds no such case.
    """
    found = find_cases(images, labels, cases)
    cohort, kept = Cohort(), _Worst(worst)
    most = max(*clicks, last or 0)
    for done, case in enumerate(found):
        if progress:
            progress(case.name, done, len(found))
        shown = _Snapshots({1, max(clicks)}, partial(_click_done, clicked, most))
        try:
            volume, truth, ignored = read_case(case, label)
            spacing = volume.spacing.tolist()
            records = evaluate_case(
                open_segmenter(volume),
                truth,
                annotator,
                spacing=spacing,
                clicks=clicks,
                last=last,
                seed=_case_seed(seed, case.name),
                watch=shown,
                ignored=ignored,
                candidates=candidates,
            )
            unprompted = None
            if 0 in clicks:
                unprompted = evaluate_unprompted(open_segmenter(volume), truth, spacing=spacing, ignored=ignored)
        except Sam3dError as error:
            cohort.skipped.append(Skipped(case.name, str(error)))
            continue
        millilitres = float(np.count_nonzero(truth)) * float(np.prod(volume.spacing)) / 1000
        result = CaseResult(case.name, millilitres, tuple(records), unprompted)
        cohort.results.append(result)
        given = [record.click for record in records if record.click is not None]
        kept.offer(
            result.after(max(clicks)).dice,
            partial(sheet_row, case.name, volume.array, volume.affine, truth, shown.masks, given, volume.modality),
        )
    cohort.worst = kept.rows
    if progress:
        progress("", len(found), len(found))
    return cohort


class _Snapshots:
    """Watches a session, keeps the masks, bool (I, J, K), after some click counts, and reports each click."""

    def __init__(self, counts: Collection[int], done: Callable[[int], None]) -> None:
        self.counts, self.done = counts, done
        self.masks: dict[int, BoolVolume] = {}

    def __call__(self, count: int, mask: BoolVolume) -> None:
        if count in self.counts:
            self.masks[count] = mask
        self.done(count)


def _click_done(clicked: Callable[[int, int], None] | None, most: int, count: int) -> None:
    if clicked:
        clicked(count, most)


class _Worst:
    """The rows of the cases with the lowest Dice so far; a row is made only for a case that is among them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._ranked: list[tuple[float, SheetRow]] = []

    @property
    def rows(self) -> list[SheetRow]:
        """Worst first."""
        return [row for _, row in self._ranked]

    def offer(self, dice: float, make: Callable[[], SheetRow]) -> None:
        """Take a case in if it is among the worst."""
        if len(self._ranked) < self.most or (self._ranked and dice < self._ranked[-1][0]):
            insort(self._ranked, (dice, make()), key=itemgetter(0))
            del self._ranked[self.most :]


def _case_seed(seed: int, name: str) -> int:
    return zlib.crc32(f"{seed}/{name}".encode())
