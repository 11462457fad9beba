"""Small cohorts on disk, and a segmenter that needs no weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sam3d_label.segmentation.prompts import Click, Prompts

SHAPE = (24, 20, 12)
AFFINE = np.diag([1.0, 1.5, 3.0, 1.0])


@dataclass
class Answer:
    mask: np.ndarray


@dataclass
class Proposal:
    result: Answer
    predicted_dice: float


class BallSegmenter:
    """Balls around positive clicks without those around negative ones; remembers what it was asked."""

    def __init__(self, volume) -> None:
        self.shape = volume.shape
        self.asked: list[tuple[Click, ...]] = []

    def segment(self, prompts: Prompts) -> Answer:
        prompts.validate(self.shape)
        self.asked.append(prompts.clicks)
        return Answer((self._near(prompts.positive) & ~self._near(prompts.negative)).astype(np.uint8))

    def candidates(self, prompts: Prompts) -> list[Proposal]:
        """Return the mask, and an empty one that is predicted to be better."""
        answer = self.segment(prompts)
        return [Proposal(Answer(0 * answer.mask), 0.9), Proposal(answer, 0.6)]

    def segment_unprompted(self) -> Answer:
        """A ball in the middle."""
        self.asked.append(())
        i, j, k = (side // 2 for side in self.shape)
        return Answer(self._near((Click((i, j, k)),)).astype(np.uint8))

    def _near(self, clicks: tuple[Click, ...]) -> np.ndarray:
        grid = np.indices(self.shape)
        near = np.zeros(self.shape, bool)
        for click in clicks:
            near |= ((grid - np.reshape(click.ijk, (3, 1, 1, 1))) ** 2).sum(axis=0) <= 25
        return near


@pytest.fixture
def ball_segmenter() -> type[BallSegmenter]:
    """The class, to be called with a volume."""
    return BallSegmenter


@pytest.fixture
def truth() -> np.ndarray:
    """A target longer than a ball: shape (24, 20, 12)."""
    mask = np.zeros(SHAPE, bool)
    mask[3:21, 6:13, 2:9] = True
    return mask


@pytest.fixture
def save(tmp_path) -> Callable[..., Path]:
    """Write an array below the test's folder."""

    def write(name: str, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), path)
        return path

    return write


@pytest.fixture
def cohort(tmp_path, save, truth) -> Path:
    """Two good cases in images/ and labels/, the labels with values 1 and 2."""
    rng = np.random.default_rng(0)
    for name, shift in (("a_ct", 0), ("b_mr", 2)):
        label = np.roll(truth, shift, axis=1).astype(np.uint8)
        label[:9] *= 2
        save(f"images/{name}.nii.gz", rng.normal(size=SHAPE).astype(np.float32))
        save(f"labels/{name}.nii.gz", label)
    return tmp_path
