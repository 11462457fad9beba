"""From clicks to a mask on the stored grid."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sam3d_label import regions
from sam3d_label.cache import EmbeddingCache
from sam3d_label.errors import PromptError
from sam3d_label.intensity import Normalization
from sam3d_label.network.sam3d import Embedding, enlarge
from sam3d_label.prompts import Box, Click, Prompts
from sam3d_label.volume import CropFrame, Volume
from sam3d_label.weights import Weights, open_weights

Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class View:
    """One crop, seen under the prompts.

    Attributes:
        frame: Where it lies.
        logit: Foreground minus background logit, (D, H, W).
    """

    frame: CropFrame
    logit: Tensor

    @property
    def mask(self) -> Tensor:
        """The target in the crop, bool (D, H, W)."""
        return self.logit > 0


@dataclass(frozen=True)
class Result:
    """What one set of prompts gave.

    Attributes:
        mask: uint8 (I, J, K) on the stored grid, 1 in the target.
        parts: Logits on the parts of the stored grid that were looked at.
        changed_box: (i0, i1, j0, j1, k0, k1) around the mask, upper ends exclusive; None when it is empty.
        seconds: Time that it took.
        encoded: Crops that had to be encoded; 0 when every embedding was cached.
        model_version: Version of the weights.
    """

    mask: np.ndarray
    parts: tuple[tuple[np.ndarray, Region], ...]
    changed_box: tuple[int, int, int, int, int, int] | None
    seconds: float
    encoded: int
    model_version: str

    @cached_property
    def probability(self) -> np.ndarray:
        """Probability of the target, float32 (I, J, K); 0 where the model did not look."""
        probability = np.zeros(self.mask.shape, np.float32)
        for logit, region in self.parts:
            part = torch.from_numpy(logit).sigmoid().numpy()
            probability[region] = np.maximum(probability[region], part)
        return probability


class Segmenter:
    """One volume and one set of weights, ready for prompts. A mask is a pure function of the three.

    Args:
        volume: The volume.
        weights: The weights, on the device that is to do the work.
        cache: Embeddings, shared between segmenters or not.
    """

    def __init__(self, volume: Volume, weights: Weights, *, cache: EmbeddingCache | None = None) -> None:
        self.volume, self.weights = volume, weights
        self.cache = cache if cache is not None else EmbeddingCache()
        card = weights.card
        self.size = weights.model.config.crop
        self.spacings = sorted(card.spacing * scale for scale in card.scales)
        self.device = next(weights.model.parameters()).device

    @classmethod
    def open(cls, path: str | os.PathLike[str], weights: str | None = None, device: str = "cpu") -> Segmenter:
        """A segmenter for a volume file or DICOM folder and weights by name or path (None: the shipped default).

        Raises:
            VolumeError: The volume cannot be read.
            WeightsError: The weights cannot be found or read.
        """
        return cls(Volume.open(path), open_weights(weights, device=device))

    def segment(self, prompts: Prompts | Iterable[Click | Box]) -> Result:
        """The mask under a set of prompts.

        Raises:
            PromptError: They do not fit the volume, contradict each other, or are of a kind that the weights have not
                learned.
        """
        started = time.monotonic()
        prompts = Prompts.of(prompts)
        prompts.validate(self.volume.shape)
        self._require_learned(prompts)
        look = Look(self, prompts)
        views = [look.settle(group) for group in regions.groups(prompts, self.volume, look.first * self.size)]
        parts = tuple(self.volume.uncrop(view.logit, view.frame) for view in views)
        mask = np.zeros(self.volume.shape, np.uint8)
        for logit, region in parts:
            mask[region] |= logit > 0
        return Result(
            mask=mask,
            parts=parts,
            changed_box=bounding_box(mask),
            seconds=time.monotonic() - started,
            encoded=look.encoded,
            model_version=self.weights.version,
        )

    @cached_property
    def normalization(self) -> Normalization:
        """The weights' intensity rule, fitted to the volume."""
        return self.weights.card.intensity.fit(self.volume.array)

    def _require_learned(self, prompts: Prompts) -> None:
        asked = {
            "positive_click": ("clicks inside", bool(prompts.positive)),
            "negative_click": ("clicks outside", bool(prompts.negative)),
            "box": ("boxes", bool(prompts.boxes)),
        }
        known = self.weights.card.capabilities
        for capability, (what, used) in asked.items():
            if used and capability not in known:
                raise PromptError(
                    f"the weights {self.weights.version} have not learned {what}, only: {', '.join(known) or 'nothing'}"
                )


class Look:
    """The views that one request needs.

    Args:
        segmenter: The volume, the weights and the cache.
        prompts: Everything that the request says.
    """

    def __init__(self, segmenter: Segmenter, prompts: Prompts) -> None:
        self.segmenter, self.prompts = segmenter, prompts
        self.first = regions.first_spacing(
            segmenter.volume, segmenter.size, segmenter.spacings, segmenter.weights.card.spacing
        )
        self.encoded = 0

    def settle(self, group: list[Click | Box]) -> View:
        """The view of one group of prompts, wider where the mask is cut off, closer where it is small."""
        points = regions.corners(group)
        view = self.view(points, self.first)
        wider = [spacing for spacing in self.segmenter.spacings if spacing > self.first]
        closer = [spacing for spacing in reversed(self.segmenter.spacings) if spacing < self.first]
        if regions.is_cut(view.mask, view.frame, self.segmenter.volume):
            return self._widen(view, points, wider)
        return self._approach(view, points, closer)

    def _widen(self, view: View, points: np.ndarray, spacings: list[float]) -> View:
        for spacing in spacings:
            view = self.view(points, spacing)
            if not regions.is_cut(view.mask, view.frame, self.segmenter.volume):
                break
        return view

    def _approach(self, view: View, points: np.ndarray, spacings: list[float]) -> View:
        for spacing in spacings:
            if not 0 < regions.extent(view.mask) < regions.SMALL:
                break
            shown = np.concatenate([points, regions.touched(view.mask, view.frame)])
            frame = regions.lattice_frame(self.segmenter.volume, shown, spacing, self.segmenter.size)
            if not all(frame.contains(point) for point in points):
                break
            closer = self.view(shown, spacing)
            if not closer.mask.any() or regions.is_cut(closer.mask, closer.frame, self.segmenter.volume):
                break
            view = closer
        return view

    @torch.inference_mode()
    def view(self, points: np.ndarray, spacing: float) -> View:
        """The crop of a spacing around stored voxels (N, 3), decoded under the prompts that lie in it."""
        segmenter = self.segmenter
        model, volume, size = segmenter.weights.model, segmenter.volume, segmenter.size
        frame = regions.lattice_frame(volume, points, spacing, size)

        def encode() -> Embedding:
            crop = volume.crop(frame, segmenter.normalization)
            return model.encode(crop[None, None].to(segmenter.device))

        with torch.autocast(segmenter.device.type, torch.bfloat16, enabled=segmenter.device.type == "cuda"):
            key = (volume.signature, segmenter.weights.signature, segmenter.normalization, frame, segmenter.device)
            embedding, made = segmenter.cache.get(key, encode)
            self.encoded += made
            clicks, signs, boxes = self._tensors(frame)
            mask: Tensor | None = None
            for _ in range(segmenter.weights.card.passes):
                classes = model.class_logits(embedding, clicks, signs, boxes=boxes, mask=mask)
                logit = (classes[:, 1:] - classes[:, :1]).float()
                mask = logit.permute(0, 1, 4, 2, 3)
            return View(frame, enlarge(logit, size)[0, 0])

    def _tensors(self, frame: CropFrame) -> tuple[Tensor, Tensor, Tensor]:
        """Points (1, N, 3), signs (1, N) and boxes (1, M, 2, 3), crop voxels, of the prompts that lie in a crop."""
        clicks = [click for click in self.prompts.clicks if frame.contains(click.ijk)]
        points = frame.to_dhw([click.ijk for click in clicks])
        signs = [[int(click.positive) for click in clicks]]
        boxes = [box_in_crop(box, frame) for box in self.prompts.boxes]
        inside = [box for box in boxes if (box[0] < box[1]).all()]
        device = self.segmenter.device
        return (
            torch.tensor(points[None], dtype=torch.float32, device=device),
            torch.tensor(signs, dtype=torch.long, device=device).reshape(1, -1),
            torch.tensor(np.array(inside), dtype=torch.float32, device=device).reshape(1, -1, 2, 3),
        )


def box_in_crop(box: Box, frame: CropFrame) -> np.ndarray:
    """Lower and upper corner (2, 3) of a box in crop voxels, clipped to the crop; not ordered when it lies outside."""
    faces = frame.to_dhw(np.add([box.lower, box.upper], [[-0.5], [0.5]]))
    lower, upper = faces.min(0), faces.max(0)
    return np.stack([np.maximum(lower, 0), np.minimum(upper, frame.size - 1)])


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int, int, int] | None:
    """(i0, i1, j0, j1, k0, k1) around a mask's non-zero voxels, upper ends exclusive; None when there are none."""
    spans = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(spans[0]):
        return None
    (i0, i1), (j0, j1), (k0, k1) = ((int(span[0]), int(span[-1]) + 1) for span in spans)
    return i0, i1, j0, j1, k0, k1
