"""A simulated session on each case: click, segment, look, click again.

The segmenter gets prompts and nothing else; only the annotator and the metrics see the truth. Like the
clients, the session sends all clicks again each time. One volume is in memory at a time.
"""

from __future__ import annotations

import fnmatch
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam3d_label.errors import Sam3dError
from sam3d_label.evaluation import metrics
from sam3d_label.evaluation.annotators import Annotator
from sam3d_label.prompts import Click, Prompts
from sam3d_label.volume import Volume

CLICK_COUNTS = (1, 3, 5, 10)
SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")


class SegmentedMask(Protocol):
    """What a segmenter answers, as far as a session looks at it."""

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Shape (I, J, K) on the stored grid, 1 inside."""


class PromptableSegmenter(Protocol):
    """One volume with a model that answers prompts."""

    def segment(self, prompts: Any) -> SegmentedMask:
        """The mask for all of ``prompts``."""


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
    """The session on one case: a record for each click from 1 on."""

    case: str
    truth_ml: float
    records: tuple[ClickRecord, ...]

    @property
    def dices(self) -> list[float]:
        """Dice after each click from 1 on."""
        return [record.dice for record in self.records]


@dataclass(frozen=True)
class Skipped:
    """A case that could not be measured, and why."""

    case: str
    reason: str


@dataclass
class Cohort:
    """Every case of an evaluation, measured or skipped."""

    results: list[CaseResult] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """One image and its label; ``label`` is ``None`` when there is no file for it."""

    name: str
    image: Path
    label: Path | None


Progress = Callable[[str, int, int], None]


def evaluate_case(
    segmenter: PromptableSegmenter,
    truth: NDArray[np.bool_],
    annotator: Annotator,
    *,
    spacing: Sequence[float],
    clicks: Sequence[int] = CLICK_COUNTS,
    last: int | None = None,
    seed: int = 0,
) -> list[ClickRecord]:
    """Click on one case.

    Args:
        segmenter: the volume under the model; it gets prompts only.
        truth: bool, shape (I, J, K), at least one voxel inside.
        annotator: who clicks.
        spacing: mm along I, J, K.
        clicks: the click counts at which surfaces are compared too; positive.
        last: click on to this count (default: the largest of ``clicks``).
        seed: of the annotator's chance.

    Returns:
        One record for each click count from 1 to the last.

    Raises:
        Sam3dError: the segmenter refuses a prompt.
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
            mask = np.asarray(answer.mask) > 0
        unchanged = click is None and bool(records)
        records.append(
            ClickRecord(
                clicks=count,
                placed=len(given),
                click=click,
                dice=records[-1].dice if unchanged else metrics.dice(mask, truth),
                nsd=metrics.nsd(mask, truth, spacing) if count in clicks else None,
                seconds=seconds,
                honoured=metrics.honoured(mask, given),
            )
        )
    return records


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
    progress: Progress | None = None,
) -> Cohort:
    """Click on every case of a folder.

    Args:
        images: a folder of volumes (files, or DICOM folders), or one file.
        labels: a folder of label files with the names of the images, or one file.
        open_segmenter: puts a volume under the model; called once for each case.
        annotator: who clicks.
        label: the value in the label files that is the target (default: every non-zero one).
        clicks: the click counts at which surfaces are compared too.
        last: click on to this count (default: the largest of ``clicks``).
        seed: of the annotator's chance; each case draws from this seed and its own name, whatever the others
            are.
        cases: a glob that a file name, or a case name, must match.
        progress: called with (case, cases done, cases in all) before each case, and once at the end.

    Returns:
        The sessions, and the cases that could not be measured (unreadable, misaligned or empty) with the
        reason.

    Raises:
        Sam3dError: a folder is missing or holds no such case.
    """
    found = find_cases(images, labels, cases)
    cohort = Cohort()
    for done, case in enumerate(found):
        if progress:
            progress(case.name, done, len(found))
        try:
            volume, truth = open_case(case, label)
            records = evaluate_case(
                open_segmenter(volume),
                truth,
                annotator,
                spacing=volume.spacing.tolist(),
                clicks=clicks,
                last=last,
                seed=_case_seed(seed, case.name),
            )
        except Sam3dError as error:
            cohort.skipped.append(Skipped(case.name, str(error)))
        else:
            millilitres = float(np.count_nonzero(truth)) * float(np.prod(volume.spacing)) / 1000
            cohort.results.append(CaseResult(case.name, millilitres, tuple(records)))
    if progress:
        progress("", len(found), len(found))
    return cohort


def find_cases(images: Path, labels: Path, pattern: str | None = None) -> list[Case]:
    """Pair images and labels by name, in the order of the names.

    Args:
        images: a folder of volumes, or one file.
        labels: a folder of label files, or one file.
        pattern: globs, separated by commas, one of which the image's file name, or the case's name, must match.

    Raises:
        Sam3dError: a folder is missing or holds no such case.
    """
    for path in (images, labels):
        if not path.exists():
            raise Sam3dError(f"{path} does not exist; give the folder of the images and the folder of their labels")
    if images.is_file():
        return [Case(_case_name(images), images, labels if labels.is_file() else _label_of(images, labels))]
    found = [Case(_case_name(path), path, _label_of(path, labels)) for path in _volumes(images)]
    chosen = [case for case in found if _matches(case, pattern)]
    if not chosen:
        said = f"that match {pattern!r} " if pattern and found else ""
        raise Sam3dError(f"no volumes {said}in {images}; expected files that end in {', '.join(SUFFIXES)}")
    return chosen


def _volumes(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        visible = not path.name.startswith(".")
        if visible and (path.is_dir() or path.name.lower().endswith(SUFFIXES)):
            yield path


def _matches(case: Case, pattern: str | None) -> bool:
    names = (case.image.name, case.name)
    globs = pattern.split(",") if pattern is not None else ["*"]
    return any(fnmatch.fnmatchcase(name, glob) for name in names for glob in globs)


def _case_name(path: Path) -> str:
    suffix = next((end for end in SUFFIXES if path.name.lower().endswith(end)), "")
    return path.name[: len(path.name) - len(suffix)]


def _label_of(image: Path, labels: Path) -> Path | None:
    candidates = [image.name, *(_case_name(image) + suffix for suffix in SUFFIXES)]
    return next((labels / name for name in candidates if (labels / name).is_file()), None)


def open_case(case: Case, label: int | None) -> tuple[Volume, NDArray[np.bool_]]:
    """The volume of a case and its target as bool (I, J, K).

    Raises:
        Sam3dError: there is no label, a file cannot be read, the grids differ, or the target is empty.
    """
    if case.label is None:
        raise Sam3dError(f"there is no label file with the name of {case.image.name}")
    volume = Volume.open(case.image)
    stored = Volume.open(case.label)
    volume.require_same_grid(stored)
    values = np.asarray(stored.array)
    truth = (values == label) if label is not None else np.abs(values) > 0
    if not truth.any():
        raise Sam3dError("the label is empty" if label is None else f"the label holds no voxel of value {label}")
    return volume, truth


def _case_seed(seed: int, name: str) -> int:
    return zlib.crc32(f"{seed}/{name}".encode())
