"""Annotated cases as the crops that the network trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sam3d_label.errors import VolumeError
from sam3d_label.evaluation.cases import find_cases
from sam3d_label.image.frame import CropFrame
from sam3d_label.image.intensity import IntensityRule, Normalization
from sam3d_label.image.labels import open_label
from sam3d_label.image.volume import Volume
from sam3d_label.masks import corners
from sam3d_label.segmentation.crop_grid import CropGrid
from sam3d_label.segmentation.target_size import FILL
from sam3d_label.training.augmentation import IMAGE, INSIDE, LABEL, augmentation

FILLS = (0.06, 0.9)
"""Longest edge of the target over the crop's, in training: from a lesion in a wide view to one that fills it; drawn
evenly on a logarithmic scale."""

LARGE_FILL, LARGE_SHARE = 1.6, 0.15
"""Share of the crops that show a part of a larger target only, as the tiles along the border of a large mask do."""

ELSEWHERE_SHARE = 0.05
"""Share of the crops at any position in the volume, for targets that can be found without a prompt."""

TRIMMED_SHARE = 0.15
"""Share of the crops in which the volume ends near the target, as in a cropped image."""

SPACING = (0.4, 5.0)
"""Spacings, mm, that a training crop may have."""

OFF_CENTRE = 0.3
"""Largest distance of the target's middle from the crop's, as a share of the crop's edge."""

SPACING_JITTER = 0.2
"""Largest difference between the logarithms of the spacings of an `inference_frame` and of inference."""

MAX_DRAWS = 10
"""Attempts to draw a crop that contains some of its target."""

SALIENT = "salient"
"""Key of a training crop: whether its target can be found without a prompt."""

REHEARSED = "rehearsed"
"""Key of a training crop: whether the network before the run gives its target."""

IGNORED = 2.0
"""Value of `INSIDE` in voxels that are neither target nor background."""


@dataclass(frozen=True)
class TrainingCase:
    """One annotated volume.

    Attributes:
        image: File of the volume.
        label: File of its label on the same grid.
        weight: How often it is drawn, relative to other cases.
        value: Value of the target in the label; None for any but 0.
        salient: Whether the target is salient, so that it can be found without a prompt.
        target: Name of the target; empty where an image has only one.
        rehearsed: Whether it is there to keep what the network knows: its label only guides the clicks, and what they
            led to before the run is learned again.
    """

    image: Path
    label: Path
    weight: float = 1.0
    value: int | None = None
    salient: bool = False
    target: str = ""
    rehearsed: bool = False

    @property
    def name(self) -> str:
        """File name of the image, and the name of the target if it has one."""
        return f"{self.image.name} {self.target}".rstrip()


def pair_cases(images: Path, labels: Path, pattern: str = "*", weight: float = 1.0) -> list[TrainingCase]:
    """Return the cases of a folder of images and one of labels, paired by `find_cases`, in order of name.

    Raises:
        Sam3dError: A folder is missing or holds no such image.
        VolumeError: None of the images has a label.
    """
    found = find_cases(images, labels, pattern)
    cases = [TrainingCase(case.image, case.label, weight) for case in found if case.label is not None]
    if not cases:
        chosen = "" if pattern == "*" else f"that matches {pattern!r} "
        raise VolumeError(f"no image {chosen}in {images} has a label of the same name in {labels}")
    return cases


@dataclass(frozen=True)
class OpenedCase:
    """A case in memory.

    Attributes:
        name: Name of the case.
        volume: The image.
        normalization: The intensity rule fitted to it.
        target: The label as a volume on the same grid, 1 in the target.
        lower: Lowest voxel i, j, k of the target.
        upper: Highest voxel i, j, k of the target.
        salient: Whether the target can be found without a prompt.
        ignored: 1 in voxels that are neither target nor background; None where there are none.
        rehearsed: As in `TrainingCase`.
    """

    name: str
    volume: Volume
    normalization: Normalization
    target: Volume
    lower: np.ndarray
    upper: np.ndarray
    salient: bool = False
    ignored: Volume | None = None
    rehearsed: bool = False

    @classmethod
    def open(cls, case: TrainingCase, intensity: IntensityRule) -> OpenedCase:
        """Read a case.

        Raises:
            VolumeError: A file cannot be read, the volume is larger than any scanner's, the label is empty or on
                another grid.
        """
        volume = Volume.open(case.image)
        volume.require_plausible_size()
        return cls.of(case, volume, open_label(case.label), intensity.fit(volume.array, volume.modality))

    @classmethod
    def of(cls, case: TrainingCase, volume: Volume, label: Volume, normalization: Normalization) -> OpenedCase:
        """Return a case whose files are read; errors as in `open`."""
        try:
            volume.require_same_grid(label)
        except VolumeError as error:
            raise VolumeError(f"{case.label} is not on the grid of {case.image}: {error}") from error
        inside = label.array > 0 if case.value is None else label.array == case.value
        found = corners(inside)
        if found is None:
            what = "is empty" if case.value is None else f"holds no voxel of value {case.value}"
            raise VolumeError(f"{case.label} {what}")
        target = Volume(inside.astype(np.float32), volume.affine)
        unknown = label.array < 0
        ignored = Volume(unknown, volume.affine) if unknown.any() else None
        return cls(case.name, volume, normalization, target, *found, case.salient, ignored, case.rehearsed)

    @property
    def extent(self) -> float:
        """Longest edge of the target's bounding box, mm."""
        return float(((self.upper - self.lower + 1) * self.volume.spacing).max())

    def frame(self, size: int, fill: float, offset: np.ndarray) -> CropFrame:
        """Return a crop in which the target's longest edge has the share `fill`, moved by `offset` (3) of its edge."""
        spacing = float(np.clip(self.extent / fill / size, *SPACING))
        middle = (self.lower + self.upper) / 2 + offset * size * spacing / self.volume.spacing
        return self.volume.frame(np.clip(middle, self.lower, self.upper).tolist(), spacing, size)

    def random_frame(self, size: int, rng: np.random.Generator) -> CropFrame:
        """Return a training crop: mostly of the whole target, sometimes of a part of it, or of a region without it."""
        elsewhere = self.salient and rng.random() < ELSEWHERE_SHARE
        large = rng.random() < LARGE_SHARE
        fill = float(np.exp(rng.uniform(*np.log((FILLS[1], LARGE_FILL) if large else FILLS))))
        offset = rng.uniform(-1, 1, 3) * (fill / 2 if large else OFF_CENTRE)
        frame = self.frame(size, fill, offset)
        if not elsewhere:
            return frame
        return self.volume.frame((rng.random(3) * (np.array(self.volume.shape) - 1)).tolist(), frame.spacing, size)

    def inference_frame(self, size: int, rng: np.random.Generator, inference_spacings: Sequence[float]) -> CropFrame:
        """Return a crop as at inference after a click on the target: of the first view, or of one that follows it.

        Args:
            size: Edge of the crop, voxels.
            rng: Chooses the click, the view, and the difference of the spacing from that of inference.
            inference_spacings: Spacings of inference, mm, the usual one first.
        """
        grid = CropGrid(self.volume, size, inference_spacings, inference_spacings[0])
        first = grid.first
        wider = [spacing for spacing in inference_spacings if first < spacing and first * size < self.extent]
        closer = [spacing for spacing in inference_spacings if spacing < first and self.extent <= FILL * spacing * size]
        spacing = float(rng.choice([first, *wider, *closer]))
        click = rng.uniform(self.lower, self.upper)[None]
        centre = grid.frame(click, spacing).centre
        return self.volume.frame(centre, spacing * float(np.exp(rng.uniform(-SPACING_JITTER, SPACING_JITTER))), size)

    def random_crop(
        self,
        size: int,
        rng: np.random.Generator,
        inference_share: float = 0.0,
        inference_spacings: Sequence[float] = (),
    ) -> dict[str, Tensor]:
        """Return `crop` of a random frame; it contains some of the target unless that can be found without a prompt.

        Args:
            size: Edge of the crop, voxels.
            rng: Random generator of the crop.
            inference_share: Probability that it is a `inference_frame`.
            inference_spacings: As there.
        """
        if inference_spacings and rng.random() < inference_share:
            crop = self.crop(self.inference_frame(size, rng, inference_spacings))
            if crop[LABEL].any():
                return crop
        for _ in range(MAX_DRAWS):
            crop = self.crop(self.random_frame(size, rng))
            if self.salient or crop[LABEL].any():
                return crop
        return self.crop(self.frame(size, FILLS[1], np.zeros(3)))

    def crop(self, frame: CropFrame) -> dict[str, Tensor]:
        """Return image, label and the mask of the volume, each (1, D, H, W), float32.

        The mask `INSIDE` is 0 outside the volume, `IGNORED` where the label is unknown, and 1 elsewhere.
        """
        image = self.volume.crop(frame, self.normalization)
        label = self.target.crop(frame) >= 0.5
        inside = (image != 0).float()
        if self.ignored is not None:
            unknown = (self.ignored.crop(frame) >= 0.5) & ~label
            inside[unknown] = IGNORED
        return {IMAGE: image[None], LABEL: label[None].float(), INSIDE: inside[None]}


def random_box_around(label: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a box (1, D, H, W), 0 or 1, around the target, with random margins; the whole crop without a target."""
    box = torch.ones_like(label)
    for axis in range(1, 4):
        there = torch.nonzero(label.amax([other for other in range(4) if other != axis]))
        if len(there):
            lower, upper = int(there[0]), int(there[-1]) + 1
            margin = rng.uniform(0.1, 1.0, 2) * (upper - lower)
            box.narrow(axis, 0, max(0, lower - round(margin[0]))).zero_()
            after = min(box.shape[axis], upper + round(margin[1]))
            box.narrow(axis, after, box.shape[axis] - after).zero_()
    return box


def with_ignored(crop: Mapping[str, Tensor]) -> Tensor:
    """Return the label of a crop, (1, D, H, W): 1 in the target, 0 in the background, -1 where it is unknown."""
    label = crop[LABEL]
    return torch.where((crop[INSIDE] == IGNORED) & (label == 0), -1.0, label)


class TrainingCrops(Dataset[dict[str, Tensor]]):
    """Random crops around the targets of opened cases.

    A crop is a function of the seed, the epoch and its index, in whatever process and order it is prepared.

    Args:
        cases: Cases in memory.
        weights: Relative frequency of each case.
        size: Edge of a crop, voxels.
        length: Crops in an epoch.
        seed: Fixes every random choice.
        inference_share: As `OpenedCase.random_crop` has it.
        inference_spacings: As there.
        homogeneous: As `TrainSettings` has it.

    Attributes:
        epoch: The epoch whose crops are drawn.
    """

    def __init__(
        self,
        cases: Sequence[OpenedCase],
        weights: Sequence[float],
        *,
        size: int,
        length: int,
        seed: int,
        inference_share: float = 0.0,
        inference_spacings: Sequence[float] = (),
        homogeneous: bool = False,
    ) -> None:
        self.cases, self.size, self.length, self.seed = cases, size, length, seed
        self.served = (inference_share, inference_spacings)
        self.shares = np.asarray(weights, float) / np.sum(weights)
        self.augment = augmentation(homogeneous)
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return image (1, D, H, W), label (1, D, H, W), and, each (1,), whether it is salient and rehearsed.

        The label is 1 in the target, 0 in the background, and -1 where voxels are ignored.
        """
        rng = np.random.default_rng([self.seed, self.epoch, index])
        case = self.cases[rng.choice(len(self.cases), p=self.shares)]
        crop = case.random_crop(self.size, rng, *self.served)
        if rng.random() < TRIMMED_SHARE:
            crop[INSIDE] *= random_box_around(crop[LABEL], rng)
        self.augment.set_random_state(int(rng.integers(2**31)))
        crop = self.augment(crop)
        plain = {key: torch.as_tensor(value).as_subclass(Tensor) for key, value in crop.items()}
        image = plain[IMAGE] * (plain[INSIDE] > 0)
        flags = {SALIENT: torch.tensor([case.salient]), REHEARSED: torch.tensor([case.rehearsed])}
        return {IMAGE: image, LABEL: with_ignored(plain), **flags}
