"""Compute a mask on the stored grid from clicks."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from sam3d_label.cache import LruCache
from sam3d_label.errors import PromptError
from sam3d_label.image.intensity import Normalization
from sam3d_label.image.region import Region, union, whole
from sam3d_label.image.volume import Volume
from sam3d_label.masks import bounding_box
from sam3d_label.segmentation.crop_encoder import CropEncoder
from sam3d_label.segmentation.crop_grid import CropGrid
from sam3d_label.segmentation.merge import TargetLogits
from sam3d_label.segmentation.outside_air import OutsideAir
from sam3d_label.segmentation.prompts import Box, ChosenCandidate, Click, Prompts
from sam3d_label.segmentation.uncertainty import UncertaintyMap, next_click, perturb
from sam3d_label.segmentation.view_search import TargetViews, View, ViewSearch
from sam3d_label.weights import Weights, open_weights

FILE_ORDER: Literal["F"] = "F"
"""Order of results in memory: that of files, which store I fastest. Writing another order takes four times as long."""


@dataclass(frozen=True)
class Result:
    """The mask of one set of prompts.

    Attributes:
        mask: uint8 (I, J, K) on the stored grid, 1 in the target.
        targets: The logits of each target.
        changed_box: (i0, i1, j0, j1, k0, k1) around the mask, upper ends exclusive; None when it is empty.
        seconds: Time that it took.
        encoded: Crops that had to be encoded; 0 when every embedding was cached.
        model_version: Version of the weights.
    """

    mask: np.ndarray
    targets: tuple[TargetLogits, ...]
    changed_box: tuple[int, int, int, int, int, int] | None
    seconds: float
    encoded: int
    model_version: str

    @cached_property
    def probability(self) -> np.ndarray:
        """Probability of the target, float32 (I, J, K); 0 outside of all crops."""
        probability = np.zeros(self.mask.shape, np.float32)
        for logit, region in (target.read() for target in self.targets):
            part = torch.from_numpy(logit).sigmoid().numpy()
            probability[region] = np.maximum(probability[region], part)
        return probability

    @cached_property
    def digest(self) -> str:
        """Hash of the mask, the same for equal masks."""
        digest = hashlib.blake2b(repr((self.mask.shape, self.changed_box)).encode(), digest_size=8)
        digest.update(np.packbits(self._inner > 0).tobytes())
        return digest.hexdigest()

    @cached_property
    def voxels(self) -> int:
        """Number of voxels in the target."""
        return int(np.count_nonzero(self._inner))

    @property
    def _inner(self) -> np.ndarray:
        """The mask inside its bounding box."""
        i0, i1, j0, j1, k0, k1 = self.changed_box or (0,) * 6
        return self.mask[i0:i1, j0:j1, k0:k1]


@dataclass(frozen=True)
class Candidate:
    """One of several masks that prompts may mean.

    Attributes:
        result: The mask.
        predicted_dice: Its Dice as the network predicts it, 0 to 1.
    """

    result: Result
    predicted_dice: float


class Segmenter:
    """One volume and one set of weights, ready for prompts. A mask is a pure function of the three.

    Example:
        >>> from sam3d_label import Click, Segmenter
        >>> segmenter = Segmenter.open("sample-data/images/lung_ct.nii.gz", weights="tiny")
        >>> result = segmenter.segment([Click((79, 82, 22)), Click((150, 60, 30), positive=False)])
        >>> result.mask.shape == segmenter.volume.shape
        True
        >>> int(result.mask[79, 82, 22]), int(result.mask[150, 60, 30])
        (1, 0)
        >>> result.model_version
        'tiny-4'

    Args:
        volume: The volume.
        weights: The weights, on the device that is to do the work.
        cache: Embeddings, shared between segmenters or not.
        two_pass: Let the prompts correct the mask of the initial one, as the weights were trained; else all prompts of
            a crop are decoded as a set.
    """

    def __init__(
        self, volume: Volume, weights: Weights, *, cache: LruCache | None = None, two_pass: bool = True
    ) -> None:
        self.volume, self.weights, self.two_pass = volume, weights, two_pass
        self.cache = cache if cache is not None else LruCache()

    @classmethod
    def open(cls, path: str | os.PathLike[str], weights: str | None = None, device: str = "cpu") -> Segmenter:
        """Return a segmenter for a volume file or DICOM folder and weights by name or path (None: the shipped default).

        Raises:
            VolumeError: The volume cannot be read.
            WeightsError: The weights cannot be found or read.
        """
        return cls(Volume.open(path), open_weights(weights, device=device))

    def segment(self, prompts: Prompts | Iterable[Click | Box]) -> Result:
        """Return the mask of a set of prompts.

        Raises:
            PromptError: They do not fit the volume, contradict each other, or are of a kind that the weights have not
                learned.
        """
        started = time.monotonic()
        search = self.search(self._check_prompts(prompts))
        return self._result([self._logits(views, search.prompts) for views in self._targets(search)], search, started)

    def candidates(self, prompts: Prompts | Iterable[Click | Box]) -> list[Candidate]:
        """Return several masks that a set of prompts may mean, such as a part, the whole, or the organ around it.

        Candidates are segmented in the crop that shows the whole target of `segment`, without closer crops along its
        border.

        Returns:
            The highest predicted Dice first. The mask of `segment` is not among them.

        Raises:
            PromptError: As for `segment`; or the weights give one mask only.
        """
        started = time.monotonic()
        search = self.search(self._check_prompts(prompts))
        candidates = []
        for views, predicted in self._proposals(search):
            targets = [self._logits(TargetViews(view), search.prompts) for view in views]
            candidates.append(Candidate(self._result(targets, search, started), predicted))
        return candidates

    def segment_unprompted(self, progress: Callable[[int, int], None] | None = None) -> Result:
        """Return the mask without any prompt, from crops over the whole volume.

        Args:
            progress: Called with the number of crops done, and of all.

        Raises:
            PromptError: The weights have not learned to segment without a prompt.
        """
        started = time.monotonic()
        self._require_learned({"no_click": "to segment without a prompt"})
        search = self.search(Prompts())
        frames = search.grid.whole_volume()
        tiles = []
        for done, frame in enumerate(frames, start=1):
            tiles.append((frame, search.view(frame).logit))
            if progress:
                progress(done, len(frames))
        return self._result([TargetLogits(self.volume, None, tuple(tiles), air=self.outside_air)], search, started)

    def uncertainty(self, prompts: Prompts | Iterable[Click | Box]) -> UncertaintyMap:
        """Return where the mask of a set of prompts changes if the prompts are perturbed.

        Raises:
            PromptError: As for `segment`.
        """
        started = time.monotonic()
        prompts = self._check_prompts(prompts)
        search = self.search(prompts)
        draws = perturb(prompts, self.volume.shape, self.volume.spacing)
        unsure = np.zeros(self.volume.shape, np.float32, order=FILE_ORDER)
        for target in self._targets(search):
            for view in target.tiles or (target.whole,):
                drawn = [search.view(view.frame, view.wider, draw).logit.sigmoid() for draw in draws]
                spread, region = self.volume.uncrop(2 * torch.stack(drawn).std(0, correction=0), view.frame)
                unsure[region] = np.maximum(unsure[region], spread.clip(0, 1))
        return UncertaintyMap(
            map=unsure,
            next_click=next_click(unsure, self.volume.spacing, prompts.clicks),
            seconds=time.monotonic() - started,
            model_version=self.weights.version,
        )

    def feature_vector(self) -> np.ndarray:
        """Return a feature vector of the volume: mean and deviation of each channel of the encoder's deepest map.

        Returns:
            float32 (2 · channels,), over all crops of the volume.
        """
        search = self.search(Prompts())
        with torch.inference_mode():
            moments = [search.encoder.moments(frame) for frame in search.grid.whole_volume()]
        means, squares = zip(*moments, strict=True)
        mean = torch.stack(means).mean(0)
        deviation = (torch.stack(squares).mean(0) - mean**2).clamp(min=0).sqrt()
        return torch.cat([mean, deviation]).cpu().numpy()

    @cached_property
    def normalization(self) -> Normalization:
        """The weights' intensity rule, fitted to the volume."""
        return self.weights.card.intensity.fit(self.volume.sample, self.volume.modality)

    @cached_property
    def outside_air(self) -> OutsideAir | None:
        """The air outside the body, where it is clear."""
        return OutsideAir.find(self.volume, self.normalization)

    def _check_prompts(self, prompts: Prompts | Iterable[Click | Box]) -> Prompts:
        prompts = Prompts.of(prompts).for_weights(self.weights.version)
        prompts.validate(self.volume.shape)
        asked = {
            "positive_click": ("clicks inside", bool(prompts.positive)),
            "negative_click": ("clicks outside", bool(prompts.negative)),
            "box": ("boxes", bool(prompts.boxes)),
        }
        self._require_learned({capability: what for capability, (what, used) in asked.items() if used})
        return prompts

    def _require_learned(self, asked: Mapping[str, str]) -> None:
        known = self.weights.card.capabilities
        for capability, what in asked.items():
            if capability not in known:
                raise PromptError(
                    f"the weights {self.weights.version} have not learned {what}, only: {', '.join(known) or 'nothing'}"
                )

    def search(self, prompts: Prompts) -> ViewSearch:
        """Return the search for the crops that show the targets of some prompts.

        Raises:
            VolumeError: The volume is larger than any scanner makes them.
        """
        self.volume.require_plausible_size()
        card = self.weights.card
        spacings = [card.spacing * scale for scale in card.scales]
        grid = CropGrid(self.volume, self.weights.model.config.crop, spacings, card.spacing)
        encoder = CropEncoder(self.volume, self.weights, self.normalization, self.cache)
        return ViewSearch(grid, encoder, prompts, two_pass=self.two_pass)

    def _targets(self, search: ViewSearch) -> Iterable[TargetViews]:
        """Return the views of each target; of a chosen candidate, with the corrections."""
        chosen = search.prompts.chosen
        return search.targets() if chosen is None else search.corrected(self._chosen_views(search, chosen))

    def _chosen_views(self, search: ViewSearch, chosen: ChosenCandidate) -> list[View]:
        """Return the view of each target of a candidate."""
        proposed = self._proposals(search.of(chosen.prompts))
        if not 0 <= chosen.number < len(proposed):
            raise PromptError(f"there is no candidate {chosen.number}, only 0 to {len(proposed) - 1}")
        return proposed[chosen.number][0]

    def _proposals(self, search: ViewSearch) -> list[tuple[list[View], float]]:
        """Return the views of each candidate and its predicted Dice, the highest first."""
        if not self.weights.model.config.candidates:
            raise PromptError(f"the weights {self.weights.version} have no candidates: they give one mask only")
        proposed = [search.proposals(views.whole) for views in self._targets(search)]
        candidates = [
            ([view for view, _ in each], float(np.mean([dice for _, dice in each])))
            for each in zip(*proposed, strict=True)
        ]
        return sorted(candidates, key=lambda candidate: -candidate[1])

    def _logits(self, views: TargetViews, prompts: Prompts) -> TargetLogits:
        """Return the logits of the views of one target."""
        air = None if self.outside_air and self.outside_air.has_any(prompts.clicks) else self.outside_air
        whole = (views.whole.frame, views.whole.logit)
        tiles = tuple((tile.frame, tile.logit) for tile in views.tiles)
        return TargetLogits(self.volume, whole, tiles, prompts.clicks, air)

    def _result(self, targets: Sequence[TargetLogits], search: ViewSearch, started: float) -> Result:
        mask = np.zeros(self.volume.shape, np.uint8, order=FILE_ORDER)
        boxes = []
        for target in targets:
            if within := target.mask_region():
                logit, region = target.read(within)
                mask[region] |= logit > 0
                boxes.append(region)
        return Result(
            mask=mask,
            targets=tuple(targets),
            changed_box=changed_box(mask, union(boxes)) if boxes else None,
            seconds=time.monotonic() - started,
            encoded=search.encoder.encoded,
            model_version=self.weights.version,
        )


def changed_box(mask: np.ndarray, within: Region | None = None) -> tuple[int, int, int, int, int, int] | None:
    """Return (i0, i1, j0, j1, k0, k1) around a mask's non-zero voxels, upper ends exclusive; None without any.

    Args:
        mask: (I, J, K).
        within: A region that has all of them, where one is known.
    """
    region = within or whole(mask.shape)
    box = bounding_box(mask[region])
    if box is None:
        return None
    i, j, k = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(region, box, strict=True))
    return i.start, i.stop, j.start, j.stop, k.start, k.stop
