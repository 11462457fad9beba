"""A baseline without a network: a random walker between the clicks and the faces of a region around them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.segmentation import random_walker

from sam3d_label.evaluation.pictures import window
from sam3d_label.image.frame import CropFrame
from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.prompts import Box, Click, Prompts

SIZE = 64
"""Edge of the grid that is walked on, voxels."""

FIELD_MM = 256.0
ROOM = 1.5
"""Edge of the region over that of the clicks, if they are far apart."""

SEED_VOXELS = 2.5
"""Radius of a click's ball of seeds on that grid; where balls overlap, the nearest click decides."""

BETA = 1000.0
"""How hard edges are to cross. It and the radius were chosen on sample-data and training patients 003 and 011."""

_FREE, _OUT, _IN = 0, 1, 2


@dataclass(frozen=True)
class WalkerResult:
    """A mask, uint8 (I, J, K) on the stored grid, 1 inside."""

    mask: NDArray[np.uint8]


class RandomWalker:
    """One volume, segmented by the random walker of Grady (2006) on its grey values.

    The region is a cube of 256 mm around the clicks, or the volume where that is smaller, seen as at most 64 isotropic
    voxels along each axis. Its faces are seeds outside the target, balls around the clicks seeds on the side that the
    click says.

    Args:
        volume: The volume.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume

    def segment(self, prompts: Prompts | Iterable[Click | Box]) -> WalkerResult:
        """Segment from a set of clicks; boxes are ignored.

        Raises:
            PromptError: They do not fit the volume or contradict each other.
        """
        prompts = Prompts.of(prompts)
        prompts.validate(self.volume.shape)
        frame = self._frame(prompts.clicks)
        region = self._region(frame)
        inside = np.zeros((SIZE,) * 3, np.float32)
        inside[region] = self._walk(frame, region, prompts.clicks)
        part, where = self.volume.uncrop(torch.from_numpy(inside), frame)
        mask = np.zeros(self.volume.shape, np.uint8)
        mask[where] = part > 0.5
        return WalkerResult(mask)

    @cached_property
    def _window(self) -> tuple[float, float]:
        return window(self.volume.array, self.volume.modality)

    def _frame(self, clicks: tuple[Click, ...]) -> CropFrame:
        """Return a cube that contains all clicks and extends beyond the volume as little as possible."""
        ijk = np.array([click.ijk for click in clicks])
        shape, spacing = np.array(self.volume.shape), self.volume.spacing
        spread = float((np.ptp(ijk, axis=0) * spacing).max())
        field = min(max(FIELD_MM, ROOM * spread), float((shape * spacing).max()))
        half = field / spacing / 2
        low, high = half - 0.5, shape - half - 0.5
        middle = (ijk.min(axis=0) + ijk.max(axis=0)) / 2
        centre = np.where(low < high, np.clip(middle, low, np.maximum(low, high)), (shape - 1) / 2)
        return self.volume.frame(centre.tolist(), field / SIZE, SIZE)

    def _region(self, frame: CropFrame) -> tuple[slice, slice, slice]:
        """Return the part of the cube, voxels d, h, w, that is inside the volume."""
        corners = frame.to_dhw(np.array([[-0.5] * 3, np.array(self.volume.shape) - 0.5]))
        low = np.clip(np.ceil(corners.min(axis=0)), 0, SIZE - 1).astype(int)
        high = np.clip(np.floor(corners.max(axis=0)), 0, SIZE - 1).astype(int)
        d, h, w = (slice(int(a), int(max(a, b)) + 1) for a, b in zip(low, high, strict=True))
        return d, h, w

    def _walk(
        self, frame: CropFrame, region: tuple[slice, slice, slice], clicks: tuple[Click, ...]
    ) -> NDArray[np.float32]:
        """Return the probability (d, h, w) that a walker from a voxel of the region meets the target's seeds first."""
        low, high = self._window
        grey = np.clip(self.volume.crop(frame).numpy()[region], low, high)
        grey = (grey - grey.mean()) / max(float(grey.std()), 1e-6)
        seeds = np.full(grey.shape, _OUT, np.int8)
        seeds[1:-1, 1:-1, 1:-1] = _FREE
        places = frame.to_dhw([click.ijk for click in clicks]) - [side.start for side in region]
        places = np.clip(np.rint(places), 0, np.array(grey.shape) - 1)
        grid = np.moveaxis(np.indices(grey.shape), 0, -1)
        away = np.stack([((grid - place) ** 2).sum(axis=-1) for place in places])
        sides = np.array([_IN if click.positive else _OUT for click in clicks], np.int8)
        balls = away.min(axis=0) <= SEED_VOXELS**2
        seeds[balls] = sides[away.argmin(axis=0)[balls]]
        if not (seeds == _OUT).any() or not (seeds == _FREE).any():
            return (seeds == _IN).astype(np.float32)
        chances = random_walker(grey, seeds, beta=BETA, mode="cg_j", tol=1e-4, prob_tol=1.0, return_full_prob=True)
        return np.asarray(chances[1], np.float32)
