"""A simulated session on each case: click, segment, compare, click again.

The segmenter gets prompts and nothing else; only the annotator and the metrics see the truth. Like the
clients, the session sends all clicks again each time. One volume is in memory at a time; of the worst cases a
slice is kept.
"""

from __future__ import annotations

import time
import zlib
from bisect import insort
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sam3d_label.errors import PromptError, Sam3dError
from sam3d_label.evaluation import metrics
from sam3d_label.evaluation.annotators import Annotator, BoolVolume
from sam3d_label.evaluation.cases import find_cases, read_case
from sam3d_label.evaluation.pictures import SheetRow, sheet_row
from sam3d_label.image.volume import Volume
from sam3d_label.masks import dice
from sam3d_label.segmentation.prompts import Click, Prompts

CLICK_COUNTS = (1, 2, 3, 5, 10)
WORST = 8
"""Cases on a contact sheet."""


class SegmentedMask(Protocol):
    """The part of a segmenter's result that a session uses."""

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Shape (I, J, K) on the stored grid, 1 inside."""


class PromptableSegmenter(Protocol):
    """One volume with a model that answers prompts."""

    def segment(self, prompts: Any) -> SegmentedMask:
        """Return the mask for all of ``prompts``."""


@runtime_checkable
class UnpromptedSegmenter(Protocol):
    """One volume with a model that may answer without a click."""

    def segment_unprompted(self) -> SegmentedMask:
        """Return the mask under no prompt; raise PromptError when the model has not learned it."""


@dataclass(frozen=True)
class ClickRecord:
    """The mask after ``clicks`` clicks.

    Attributes:
        clicks: how many clicks the session was allowed so far.
        placed: how many the annotator gave; fewer once nothing was left to correct, and the mask then stays.
        click: the newest one; ``None`` when the annotator had stopped.
        dice: overlap with the truth.
        nsd: surface agreement at ``metrics.TOLERANCES_MM``; ``None`` where it was not asked for.
        seconds: wall time of the request; 0 when there was none.
        honoured: how many of the ``placed`` clicked voxels are on the side their click said.
    """

    clicks: int
    placed: int
    click: Click | None
    dice: float
    nsd: tuple[float, ...] | None
    seconds: float
    honoured: int


@dataclass(frozen=True)
class CaseResult:
    """The session on one case.

    Attributes:
        case: its name.
        truth_ml: volume of the target.
        records: for each click from 1 on.
        unprompted: before the first click; ``None`` where it was not asked for.
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


Progress = Callable[[str, int, int], None]
Watch = Callable[[int, BoolVolume], None]


def evaluate_case(
    segmenter: PromptableSegmenter,
    truth: NDArray[np.bool_],
    annotator: Annotator,
    *,
    spacing: Sequence[float],
    clicks: Sequence[int] = CLICK_COUNTS,
    last: int | None = None,
    seed: int = 0,
    watch: Watch | None = None,
    ignored: NDArray[np.bool_] | None = None,
) -> list[ClickRecord]:
    """Click on one case.

    Args:
        segmenter: the volume under the model; it gets prompts only.
        truth: bool, shape (I, J, K), at least one voxel inside.
        annotator: who clicks.
        spacing: mm along I, J, K.
        clicks: the click counts at which surfaces are compared too; 0 adds nothing here.
        last: click on to this count (default: the largest of ``clicks``).
        seed: of the annotator's randomness.
        watch: called with each click count and its mask, bool (I, J, K).
        ignored: bool, shape (I, J, K): voxels that count neither as target nor as background, outside ``truth``.

    Returns:
        One record for each click count from 1 to the last.

    Raises:
        Sam3dError: the segmenter rejects a prompt.
    """
    rng = np.random.default_rng(seed)
    mask = np.zeros(truth.shape, bool)
    given: list[Click] = []
    records: list[ClickRecord] = []
    for count in range(1, max(*clicks, last or 0) + 1):
        click = annotator(truth, mask, given, rng, spacing)
        seconds = 0.0
        if click is not None:
            given.append(click)
            start = time.perf_counter()
            answer = segmenter.segment(Prompts(clicks=tuple(given)))
            seconds = time.perf_counter() - start
            mask = _counted(answer.mask, ignored)
        unchanged = click is None and bool(records)
        records.append(
            ClickRecord(
                clicks=count,
                placed=len(given),
                click=click,
                dice=records[-1].dice if unchanged else dice(mask, truth),
                nsd=metrics.nsd(mask, truth, spacing) if count in clicks else None,
                seconds=seconds,
                honoured=metrics.honoured(mask, given),
            )
        )
        if watch:
            watch(count, mask)
    return records


def _counted(mask: NDArray[Any], ignored: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Return a mask without the voxels that do not count."""
    found = np.asarray(mask) > 0
    return found if ignored is None else found & ~ignored


def evaluate_unprompted(
    segmenter: PromptableSegmenter,
    truth: NDArray[np.bool_],
    *,
    spacing: Sequence[float],
    ignored: NDArray[np.bool_] | None = None,
) -> ClickRecord:
    """Evaluate one case without a click.

    Args:
        segmenter: the volume under the model.
        truth: bool, shape (I, J, K).
        spacing: mm along I, J, K.
        ignored: as ``evaluate_case`` has it.

    Raises:
        PromptError: the model has not learned to segment without a click.
    """
    if not isinstance(segmenter, UnpromptedSegmenter):
        raise PromptError("this segmenter needs a click: leave 0 out of the click counts")
    start = time.perf_counter()
    answer = segmenter.segment_unprompted()
    seconds = time.perf_counter() - start
    mask = _counted(answer.mask, ignored)
    return ClickRecord(
        clicks=0,
        placed=0,
        click=None,
        dice=dice(mask, truth),
        nsd=metrics.nsd(mask, truth, spacing),
        seconds=seconds,
        honoured=0,
    )


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
    worst: int = WORST,
    progress: Progress | None = None,
    clicked: Callable[[int, int], None] | None = None,
) -> Cohort:
    """Click on every case of a folder.

    Args:
        images: a folder of volumes (files, or DICOM folders), or one file.
        labels: a folder of label files with the names of the images, or one file.
        open_segmenter: puts a volume under the model; called once for each case, and once more for 0 clicks, so
            that neither answer finds work of the other done.
        annotator: who clicks; the first click answers an empty mask, also where 0 clicks are measured.
        label: the value in the label files that is the target (default: every non-zero one).
        clicks: the click counts at which surfaces are compared too, at least one positive; with 0, the mask
            without a click is measured.
        last: click on to this count (default: the largest of ``clicks``).
        seed: of the annotator's randomness; each case draws from this seed and its own name, whatever the others
            are.
        cases: a glob that a file name, or a case name, must match.
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
