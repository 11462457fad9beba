"""A simulated session on one case: click, segment, compare, click again.

The segmenter gets prompts and nothing else; only the annotator and the metrics see the truth. Like the
clients, the session sends all clicks again each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sam3d_label.errors import PromptError
from sam3d_label.evaluation import metrics
from sam3d_label.evaluation.annotators import Annotator, BoolVolume
from sam3d_label.masks import dice
from sam3d_label.segmentation.prompts import Click, Prompts

CLICK_COUNTS = (1, 2, 3, 5, 10)


class SegmentedMask(Protocol):
    """The part of a segmenter's result that a session uses."""

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Shape (I, J, K) on the stored grid, 1 inside."""


class PromptableSegmenter(Protocol):
    """One volume with a model that answers prompts."""

    def segment(self, prompts: Prompts) -> SegmentedMask:
        """Return the mask for all of ``prompts``."""


@runtime_checkable
class UnpromptedSegmenter(Protocol):
    """One volume with a model that may answer without a click."""

    def segment_unprompted(self) -> SegmentedMask:
        """Return the mask under no prompt; raise PromptError when the model has not learned it."""


class CandidateMask(Protocol):
    """One of several masks that prompts may mean."""

    @property
    def result(self) -> SegmentedMask:
        """The mask."""

    @property
    def predicted_dice(self) -> float:
        """Its Dice as the model predicts it."""


@runtime_checkable
class ProposingSegmenter(Protocol):
    """One volume with a model that proposes several masks."""

    def candidates(self, prompts: Prompts) -> Sequence[CandidateMask]:
        """Return the masks that the prompts may mean; raise PromptError when the model has one mask only."""


@dataclass(frozen=True)
class CandidateScore:
    """Predicted and measured Dice of a candidate."""

    predicted_dice: float
    dice: float


@dataclass(frozen=True)
class ClickRecord:
    """The mask after ``clicks`` clicks.

    Attributes:
        clicks: how many clicks the session was allowed so far.
        placed: how many clicks the annotator placed; fewer if nothing was left to correct, and the mask then stays.
        click: the newest one; ``None`` when the annotator had stopped.
        dice: overlap with the truth.
        nsd: surface agreement at ``metrics.TOLERANCES_MM``; ``None`` if it was not requested.
        seconds: wall time of the request; 0 when there was none.
        honoured: how many of the ``placed`` clicked voxels are on the side their click said.
        candidates: scores of the candidates, highest predicted Dice first; empty if they were not requested.
    """

    clicks: int
    placed: int
    click: Click | None
    dice: float
    nsd: tuple[float, ...] | None
    seconds: float
    honoured: int
    candidates: tuple[CandidateScore, ...] = ()


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
    candidates: bool = False,
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
        candidates: measure the candidates too, at each count in ``clicks``.

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
        propose = candidates and count in clicks
        records.append(
            ClickRecord(
                clicks=count,
                placed=len(given),
                click=click,
                dice=records[-1].dice if unchanged else dice(mask, truth),
                nsd=metrics.nsd(mask, truth, spacing) if count in clicks else None,
                seconds=seconds,
                honoured=metrics.count_honoured(mask, given),
                candidates=_score_candidates(segmenter, given, truth, ignored) if propose else (),
            )
        )
        if watch:
            watch(count, mask)
    return records


def _score_candidates(
    segmenter: PromptableSegmenter,
    clicks: Sequence[Click],
    truth: NDArray[np.bool_],
    ignored: NDArray[np.bool_] | None,
) -> tuple[CandidateScore, ...]:
    if not isinstance(segmenter, ProposingSegmenter):
        raise PromptError("this segmenter has no candidates")
    return tuple(
        CandidateScore(one.predicted_dice, dice(_counted(one.result.mask, ignored), truth))
        for one in segmenter.candidates(Prompts(clicks=tuple(clicks)))
    )


def _counted(mask: NDArray[np.uint8], ignored: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
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
