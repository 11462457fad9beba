"""The views that a request needs: wider where a mask is cut off, closer where it is small, tiles where it is large."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_label.cache import EmbeddingCache
from sam3d_label.image.frame import CropFrame
from sam3d_label.image.intensity import Normalization
from sam3d_label.image.volume import Volume
from sam3d_label.network import Embedding
from sam3d_label.segmentation import crop_grid
from sam3d_label.segmentation.cancellation import checkpoint
from sam3d_label.segmentation.guided_filter import follow_edges
from sam3d_label.segmentation.prompts import Box, Click, Prompts
from sam3d_label.segmentation.target_size import FILL, size_by_clicks, size_by_looks
from sam3d_label.segmentation.two_pass import opening
from sam3d_label.weights import Weights

Region = tuple[slice, slice, slice]
Part = tuple[np.ndarray, Region]
"""Logits (i, j, k), float32, and the part of the stored grid where they lie."""

HONOURED_MM = 2.0
"""Radius of what goes with a click that the network did not follow."""

LEAST_LOGIT = 0.1
"""Least size of a logit there."""

IMAGE, SIZE, REACH = "image", "size", "reach"
"""End the keys of what a crop shows, of how large what was clicked in it looks, and of a click's geodesic maps."""

TAPER = 0.125
"""Share of a tile's edge over which it gives way to its neighbours."""


@dataclass(frozen=True)
class View:
    """One crop, seen under the prompts.

    Attributes:
        frame: Where it lies.
        logit: Foreground minus background logit, (D, H, W).
        wider: The view whose mask this one was given, if any.
    """

    frame: CropFrame
    logit: Tensor
    wider: View | None = None

    @property
    def mask(self) -> Tensor:
        """The target in the crop, bool (D, H, W)."""
        return self.logit > 0

    def seen_from(self, frame: CropFrame, half: int) -> Tensor:
        """The logit (1, 1, half, half, half) on the decoder's grid of another crop; 0 where this view ends."""
        along = np.linspace(0, frame.size - 1, half)[:, None].repeat(3, axis=1)
        here = self.frame.to_dhw(frame.to_ijk(along)) / (self.frame.size - 1) * 2 - 1
        d, h, w = torch.from_numpy(here).to(self.logit).unbind(1)
        grid = torch.stack(torch.meshgrid(d, h, w, indexing="ij")[::-1], -1)
        return F.grid_sample(self.logit[None, None], grid[None], align_corners=True)


@dataclass(frozen=True)
class Seen:
    """What was seen of one target.

    Attributes:
        view: All of it.
        tiles: Closer views along its border, where it is larger than one of them.
    """

    view: View
    tiles: tuple[View, ...] = ()

    @property
    def views(self) -> tuple[View, ...]:
        """The wide view and its tiles."""
        return (self.view, *self.tiles)


class Look:
    """The eyes of one request.

    Args:
        volume: What is looked at.
        weights: The network and its card.
        normalization: The card's intensity rule, fitted to the volume.
        cache: Embeddings of crops.
        prompts: Everything that the request says.

    Attributes:
        first: Spacing of the first view of what may have any size, mm.
        encoded: Crops that had to be encoded so far.
    """

    def __init__(
        self, volume: Volume, weights: Weights, normalization: Normalization, cache: EmbeddingCache, prompts: Prompts
    ) -> None:
        self.volume, self.weights, self.normalization, self.cache = volume, weights, normalization, cache
        self.prompts = prompts
        card = weights.card
        self.size = weights.model.config.crop
        self.spacings = sorted(card.spacing * scale for scale in card.scales)
        self.first = crop_grid.first_spacing(volume, self.size, self.spacings, card.spacing)
        self.device = next(weights.model.parameters()).device
        self.knows_masks = "mask" in card.capabilities
        self.encoded = 0

    def targets(self) -> Iterator[Seen]:
        """What is seen of each group of prompts that one crop can show."""
        for group in crop_grid.groups(self.prompts, self.volume, self.first * self.size):
            yield self.settle(group)

    def settle(self, group: list[Click | Box]) -> Seen:
        """The views of one group of prompts."""
        points = crop_grid.corners(group)
        view = self._whole(points, self.opening_spacing(group))
        if view.frame.spacing > self.first:
            return Seen(view, tuple(self._tiles(view)))
        return Seen(self._approach(view, points))

    def opening_spacing(self, group: list[Click | Box]) -> float:
        """The finest spacing at which a target of the size that the group tells fits well; at most the first one."""
        size = float(((np.ptp(crop_grid.corners(group), axis=0) + 1) * self.volume.spacing).max())
        if not any(isinstance(drawn, Box) for drawn in group):
            inside = [click for click in self.prompts.positive if click in group]
            outside = crop_grid.corners(self.prompts.negative)
            told = size_by_clicks(crop_grid.corners(inside), outside, self.volume.spacing)
            size = max(size, min(told, self._looks(inside[0])))
        return min([s for s in self.spacings if size <= FILL * s * self.size and s < self.first], default=self.first)

    def everywhere(self) -> list[CropFrame]:
        """Crops of the first spacing that together show the whole volume."""
        corners = np.array([[0, 0, 0], np.array(self.volume.shape) - 1], float)
        return crop_grid.tiling(self.volume, corners, self.first, self.size)

    @torch.inference_mode()
    def view(self, frame: CropFrame, wider: View | None = None, prompts: Prompts | None = None) -> View:
        """A crop under the prompts that lie in it, which correct the mask of a wider view or what one of them opens.

        Args:
            frame: The crop.
            wider: A wider view of the same target.
            prompts: Other prompts than those of the request, to correct the same.

        Raises:
            WorkCancelledError: The result is not needed any more.
        """
        checkpoint()
        model = self.weights.model
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            embedding = self._embedding(frame)
            clicks, signs, boxes = self._tensors(frame, prompts or self.prompts)
            base = self._base(frame, embedding, wider) if self.knows_masks else None
            reach = self._reach(frame, embedding, clicks) if prompts is None else None
            known = {} if reach is None else {"reach": reach}
            logit = model.decode(embedding, clicks, signs, boxes=boxes, mask=base, **known)
        return View(frame, follow_edges(logit[0, 0].float(), self._image(frame)), wider)

    @torch.inference_mode()
    def moments(self, frame: CropFrame) -> tuple[Tensor, Tensor]:
        """Mean and mean square of each channel of a crop's deepest feature map, (channels,)."""
        feature = self._embedding(frame).feature[0].float().flatten(1)
        return feature.mean(1), (feature**2).mean(1)

    def _base(self, frame: CropFrame, embedding: Embedding, wider: View | None) -> Tensor | None:
        """What the prompts correct."""
        if wider is not None:
            return wider.seen_from(frame, self.weights.model.config.half)

        def remember(click: tuple[float, ...], make: Callable[[], Tensor]) -> Tensor:
            return self.cache.get((self._key(frame), click), make)[0]

        told = self._tensors(frame, self.prompts)
        return opening(self.weights.model, embedding, told, remember, self._reach(frame, embedding, told[0]))

    def _reach(self, frame: CropFrame, embedding: Embedding, points: Tensor) -> list[Tensor] | None:
        """The geodesic maps of clicks (1, N, 3) in a crop, made once for each; None for weights without such maps."""
        model = self.weights.model
        if not model.config.geodesic:
            return None
        keys = [(*self._key(frame), REACH, *point) for point in points[0].tolist()]
        makers = [partial(self._maps, embedding, point[None, None]) for point in points[0]]
        return [self.cache.get(key, make)[0] for key, make in zip(keys, makers, strict=True)]

    def _maps(self, embedding: Embedding, point: Tensor) -> Tensor:
        """The geodesic maps of a click (1, 1, 3)."""
        (maps,) = self.weights.model.reach(embedding, point)
        return maps

    def _around(self, points: np.ndarray, spacing: float) -> CropFrame:
        return crop_grid.lattice_frame(self.volume, points, spacing, self.size)

    def _is_cut(self, view: View) -> bool:
        return crop_grid.is_cut(view.mask, view.frame, self.volume)

    def _looks(self, click: Click) -> float:
        """How large what was clicked looks to be, mm."""
        frame = self._around(crop_grid.corners([click]), self.first)
        (at,) = frame.to_dhw([click.ijk])
        voxels, _ = self.cache.get((*self._key(frame), SIZE, click.ijk), lambda: size_by_looks(self._image(frame), at))
        return float(voxels) * frame.spacing

    def _whole(self, points: np.ndarray, spacing: float) -> View:
        """The first view, from a spacing on, whose faces do not cut off the mask; the widest one if all do."""
        for wide in self.spacings:
            if wide >= spacing:
                view = self.view(self._around(points, wide))
                if not self._is_cut(view):
                    break
        return view

    def _approach(self, view: View, points: np.ndarray) -> View:
        for spacing in reversed(self.spacings):
            if spacing >= view.frame.spacing:
                continue
            if not 0 < crop_grid.extent(view.mask) < crop_grid.SMALL:
                break
            frame = self._around(np.concatenate([points, crop_grid.touched(view.mask, view.frame)]), spacing)
            if not all(frame.contains(point) for point in points):
                break
            closer = self.view(frame, view)
            if not closer.mask.any() or self._is_cut(closer):
                break
            view = closer
        return view

    def _tiles(self, view: View) -> Iterator[View]:
        """Views of the first spacing along the border of a mask that only a wider one shows whole."""
        if view.frame.spacing <= self.first or not view.mask.any():
            return
        for frame in crop_grid.border_tiles(self.volume, view.mask, view.frame, self.first, self.size):
            if self.knows_masks or any(frame.contains(click.ijk) for click in self.prompts.positive):
                yield self.view(frame, view)

    def _embedding(self, frame: CropFrame) -> Embedding:
        embedding, made = self.cache.get(
            self._key(frame), lambda: self.weights.model.encode(self._image(frame)[None, None])
        )
        self.encoded += made
        return embedding

    def _image(self, frame: CropFrame) -> Tensor:
        """A crop of the volume, normalized, (D, H, W)."""
        image, _ = self.cache.get(
            (*self._key(frame), IMAGE), lambda: self.volume.crop(frame, self.normalization).to(self.device)
        )
        return image

    def _key(self, frame: CropFrame) -> tuple[Hashable, ...]:
        return (self.volume.signature, self.weights.signature, self.normalization, frame, self.device)

    def _tensors(self, frame: CropFrame, prompts: Prompts) -> tuple[Tensor, Tensor, Tensor]:
        """Points (1, N, 3), signs (1, N) and boxes (1, M, 2, 3), crop voxels, of the prompts that lie in a crop."""
        clicks = [click for click in prompts.clicks if frame.contains(click.ijk)]
        points = frame.to_dhw([click.ijk for click in clicks])
        signs = [[int(click.positive) for click in clicks]]
        boxes = [box_in_crop(box, frame) for box in prompts.boxes]
        inside = [box for box in boxes if (box[0] < box[1]).all()]
        return (
            torch.tensor(points[None], dtype=torch.float32, device=self.device),
            torch.tensor(signs, dtype=torch.long, device=self.device).reshape(1, -1),
            torch.tensor(np.array(inside), dtype=torch.float32, device=self.device).reshape(1, -1, 2, 3),
        )


def stitch(volume: Volume, base: Part | None, tiles: Sequence[tuple[CropFrame, Tensor]]) -> Part:
    """Tiles (D, H, W) over a base, each giving way to its neighbours and to the base towards its faces.

    Args:
        volume: The volume that they show.
        base: What lies under the tiles; None for nothing, over the whole stored grid.
        tiles: Where each lies, and its logits.
    """
    whole: Region = (slice(0, volume.shape[0]), slice(0, volume.shape[1]), slice(0, volume.shape[2]))
    under, region = base or (np.zeros(volume.shape, np.float32), whole)
    if not tiles:
        return under, region
    total, weight = np.zeros_like(under), np.zeros_like(under)
    for frame, logit in tiles:
        ramp = taper(frame.size)
        values, place = volume.uncrop(logit, frame)
        share, _ = volume.uncrop(ramp, frame)
        there, here = overlap(region, place)
        total[there] += (share * values)[here]
        weight[there] += share[here]
    rest = np.maximum(1 - weight, 0)
    return (total + rest * under) / (weight + rest), region


def honour(part: Part, clicks: Sequence[Click], spacing: np.ndarray) -> None:
    """Put every clicked voxel of a part on the side that its click says, in place, where the network did not.

    What lies within `HONOURED_MM` of such a click goes with it, unless a click of the other side is nearer.

    Args:
        part: Logits, and where they lie.
        clicks: All clicks.
        spacing: mm along I, J, K.
    """
    logit, region = part
    lower = np.array([along.start for along in region])
    reach = np.ceil(HONOURED_MM / spacing).astype(int)
    for click in clicks:
        at = np.array(click.ijk) - lower
        if ((at < 0) | (at >= logit.shape)).any() or (logit[tuple(at)] > 0) == click.positive:
            continue
        first, last = np.maximum(at - reach, 0), np.minimum(at + reach + 1, logit.shape)
        voxels = np.stack(np.meshgrid(*map(np.arange, first, last), indexing="ij"), -1) + lower
        own = np.linalg.norm((voxels - click.ijk) * spacing, axis=-1)
        goes = own <= HONOURED_MM
        for other in clicks:
            if other.positive != click.positive:
                goes &= own < np.linalg.norm((voxels - other.ijk) * spacing, axis=-1)
        window = logit[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        window[goes] = np.maximum(np.abs(window[goes]), LEAST_LOGIT) * (1 if click.positive else -1)


def taper(size: int) -> Tensor:
    """Weights (size, size, size) of a tile: 1, falling to 0 towards its faces."""
    along = torch.arange(size) + 0.5
    ramp = (torch.minimum(along, size - along) / (TAPER * size)).clamp(max=1)
    return torch.einsum("d,h,w->dhw", ramp, ramp, ramp)


def overlap(first: Region, second: Region) -> tuple[Region, Region]:
    """What two parts of the stored grid share, counted from the beginning of each."""
    spans = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(first, second, strict=True)]
    in_first = [slice(lo - a.start, max(hi, lo) - a.start) for (lo, hi), a in zip(spans, first, strict=True)]
    in_second = [slice(lo - b.start, max(hi, lo) - b.start) for (lo, hi), b in zip(spans, second, strict=True)]
    return (in_first[0], in_first[1], in_first[2]), (in_second[0], in_second[1], in_second[2])


def box_in_crop(box: Box, frame: CropFrame) -> np.ndarray:
    """Lower and upper corner (2, 3) of a box in crop voxels, clipped to the crop; not ordered when it lies outside."""
    faces = frame.to_dhw(np.add([box.lower, box.upper], [[-0.5], [0.5]]))
    lower, upper = faces.min(0), faces.max(0)
    return np.stack([np.maximum(lower, 0), np.minimum(upper, frame.size - 1)])
