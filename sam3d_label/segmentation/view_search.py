"""The search for the crop that shows a target well: wider where the mask is cut off, closer where it is small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_label.image.frame import CropFrame
from sam3d_label.segmentation.cancellation import checkpoint
from sam3d_label.segmentation.crop_encoder import CropEncoder
from sam3d_label.segmentation.crop_grid import CropGrid, extent, mask_corners, prompt_voxels
from sam3d_label.segmentation.crop_prompts import CropPrompts
from sam3d_label.segmentation.guided_filter import follow_edges
from sam3d_label.segmentation.local_corrections import keep_local
from sam3d_label.segmentation.prompts import Box, Click, Prompts
from sam3d_label.segmentation.target_size import FILL, size_by_clicks

SMALL = 0.2
"""A mask whose longest edge is below this share of a crop's is shown in a closer crop."""

CLEARLY_BETTER = 0.015
"""Difference of the predicted Dice of two masks above which the wider crop is used."""


@dataclass(frozen=True)
class View:
    """The mask of one crop under the prompts.

    Attributes:
        frame: The crop.
        logit: Foreground minus background logit, (D, H, W).
        wider: The view of a wider crop whose mask was an input, if any.
    """

    frame: CropFrame
    logit: Tensor
    wider: View | None = None

    @cached_property
    def mask(self) -> Tensor:
        """The target in the crop, bool (D, H, W)."""
        return (self.logit > 0).contiguous()

    def resample(self, frame: CropFrame, half: int) -> Tensor:
        """Return the logit (1, 1, half, half, half) on the decoder's grid of another crop; 0 outside this view."""
        along = np.linspace(0, frame.size - 1, half)[:, None].repeat(3, axis=1)
        here = self.frame.to_dhw(frame.to_ijk(along)) / (self.frame.size - 1) * 2 - 1
        d, h, w = torch.from_numpy(here).to(self.logit).unbind(1)
        grid = torch.stack(torch.meshgrid(d, h, w, indexing="ij")[::-1], -1)
        return F.grid_sample(self.logit[None, None], grid[None], align_corners=True)


@dataclass(frozen=True)
class TargetViews:
    """The views of one target.

    Attributes:
        whole: Shows all of it.
        tiles: Closer views along its border, when it is larger than one of them.
    """

    whole: View
    tiles: tuple[View, ...] = ()


class ViewSearch:
    """Finds the views of the targets of one request.

    Args:
        grid: Places crops on the volume.
        encoder: Encodes and decodes them.
        prompts: All prompts of the request.
        two_pass: Let the prompts correct the mask of the initial one (`two_pass`).
    """

    def __init__(self, grid: CropGrid, encoder: CropEncoder, prompts: Prompts, *, two_pass: bool = True) -> None:
        self.grid, self.encoder, self.prompts, self.two_pass = grid, encoder, prompts, two_pass

    def of(self, prompts: Prompts) -> ViewSearch:
        """Return the search for the targets of other prompts, in the same volume."""
        return ViewSearch(self.grid, self.encoder, prompts, two_pass=self.two_pass)

    def targets(self) -> Iterator[TargetViews]:
        """Yield the views of each group of prompts that one crop can show."""
        for group in self.grid.groups(self.prompts):
            yield self.target(group)

    def target(self, group: list[Click | Box]) -> TargetViews:
        """Return the views of one group of prompts."""
        points = prompt_voxels(group)
        view = self._widen(points, self.initial_spacing(group))
        if view.frame.spacing > self.grid.first:
            return TargetViews(view, tuple(self.tiles(view)))
        return TargetViews(self._zoom_in(view, points))

    def corrected(self, chosen: Sequence[View]) -> Iterator[TargetViews]:
        """Yield a chosen candidate with the corrections of the request, then targets that are too far from it.

        Args:
            chosen: The view of each target of the candidate.
        """
        new = self.prompts.corrections
        views = [self._correct(view, new) for view in chosen]
        for view in views:
            yield TargetViews(view)
        clicks = tuple(click for click in new.positive if not any(view.frame.contains(click.ijk) for view in views))
        for group in self.grid.groups(Prompts(clicks)):
            yield self.target(group)

    @torch.inference_mode()
    def _correct(self, chosen: View, new: Prompts) -> View:
        """Return a view of a chosen candidate that is changed only where a new prompt asks for it.

        Raises:
            WorkCancelledError: The result is not needed any more.
        """
        if not (new.clicks or new.boxes):
            return chosen
        checkpoint()
        encoder, frame = self.encoder, self._frame_with(chosen, prompt_voxels([*new.clicks, *new.boxes]))
        prompts = CropPrompts.of(self.prompts, frame, encoder.device)
        logit = encoder.logit(frame, prompts, self._mask_to_correct(frame, prompts, chosen))
        logit = follow_edges(logit[0, 0].float(), encoder.image(frame))[None, None]
        initial = chosen.resample(frame, frame.size)
        kept = keep_local(logit, initial, CropPrompts.of(new, frame, encoder.device))
        return View(frame, torch.where((kept > 0) != (initial > 0), kept, initial)[0, 0], chosen)

    def _frame_with(self, view: View, points: np.ndarray) -> CropFrame:
        """Return the crop of a view or, if some points are outside, the closest that shows its mask and all of them."""
        corners = mask_corners(view.mask, view.frame) if view.mask.any() else points
        around = np.concatenate([points, corners])
        wider = (self.grid.frame(around, wide) for wide in self.grid.spacings if wide >= view.frame.spacing)
        frames = (frame for frame in (view.frame, *wider) if all(frame.contains(point) for point in points))
        return next(frames, view.frame)

    def initial_spacing(self, group: list[Click | Box]) -> float:
        """Return the spacing of the first crop: at most the grid's first one, finer for a target that seems smaller.

        The drawn prompts limit the size of the target from below, clicks outside from above. Between these limits, the
        image around the click gives an estimate. A network that predicts the Dice of its masks can correct it: to the
        spacing with the highest prediction, if that is clearly higher than for the estimate.

        Raises:
            WorkCancelledError: The result is not needed any more.
        """
        volume = self.grid.volume
        drawn = float(((np.ptp(prompt_voxels(group), axis=0) + 1) * volume.spacing).max())
        if any(isinstance(one, Box) for one in group):
            return self._suitable(drawn)
        inside = [click for click in self.prompts.positive if click in group]
        bound = size_by_clicks(prompt_voxels(inside), prompt_voxels(self.prompts.negative), volume.spacing)
        first = self.grid.frame(prompt_voxels(inside[:1]), self.grid.first)
        apparent = self.encoder.apparent_size(first, inside[0].ijk)
        finest, widest = self._suitable(max(drawn, min(bound, apparent))), self._suitable(max(drawn, bound))
        if finest == widest or not self.encoder.predicts_dice:
            return finest
        predicted = {s: self._predicted_dice(inside[0], s) for s in self.grid.spacings if finest <= s <= widest}
        best = max(predicted, key=predicted.__getitem__)
        return best if predicted[best] > predicted[finest] + CLEARLY_BETTER else finest

    def _suitable(self, size: float) -> float:
        """Return the finest spacing that suits a target of a size, mm; at most the first one."""
        suitable = [s for s in self.grid.spacings if size <= FILL * s * self.grid.size and s < self.grid.first]
        return min(suitable, default=self.grid.first)

    @torch.inference_mode()
    def _predicted_dice(self, click: Click, spacing: float) -> float:
        checkpoint()
        return self.encoder.predicted_dice(self.grid.frame(prompt_voxels([click]), spacing), click)

    @torch.inference_mode()
    def view(self, frame: CropFrame, wider: View | None = None, perturbed: Prompts | None = None) -> View:
        """Return the view of a crop under the prompts that are in it.

        They correct the mask of a wider view or, without one, the mask of the initial prompt.

        Args:
            frame: The crop.
            wider: A wider view of the same target.
            perturbed: Prompts that correct that mask in place of those of the request.

        Raises:
            WorkCancelledError: The result is not needed any more.
        """
        checkpoint()
        encoder = self.encoder
        prompts = CropPrompts.of(self.prompts, frame, encoder.device)
        mask = self._mask_to_correct(frame, prompts, wider)
        if perturbed is None:
            logit = encoder.logit(frame, prompts, mask)
            if wider is None and mask is not None:
                logit = keep_local(logit, mask, prompts)
        else:
            prompts = CropPrompts.of(perturbed, frame, encoder.device)
            logit = encoder.logit(frame, prompts, mask, repeated=False)
        return View(frame, follow_edges(logit[0, 0].float(), encoder.image(frame)), wider)

    @torch.inference_mode()
    def proposals(self, view: View) -> list[tuple[View, float]]:
        """Return the candidates of the network for a view, each with its predicted Dice.

        Raises:
            WorkCancelledError: The result is not needed any more.
        """
        checkpoint()
        encoder = self.encoder
        prompts = CropPrompts.of(self.prompts, view.frame, encoder.device)
        proposed = encoder.propose(view.frame, prompts, self._mask_to_correct(view.frame, prompts, view.wider))
        image = encoder.image(view.frame)
        logits = [follow_edges(logit.float(), image) for logit in proposed.candidates[0]]
        return [
            (View(view.frame, logit, view.wider), float(dice))
            for logit, dice in zip(logits, proposed.dice[0], strict=True)
        ]

    def _mask_to_correct(self, frame: CropFrame, prompts: CropPrompts, wider: View | None) -> Tensor | None:
        if not self.encoder.accepts_masks:
            return None
        if wider is not None:
            return wider.resample(frame, self.encoder.weights.model.config.half)
        return self.encoder.initial_logit(frame, prompts) if self.two_pass else None

    def _widen(self, points: np.ndarray, spacing: float) -> View:
        """Return the first view, from a spacing on, whose faces do not cut off the mask; the widest one if all do."""
        for wide in self.grid.spacings:
            if wide >= spacing:
                view = self.view(self.grid.frame(points, wide))
                if not self.grid.is_cut(view.mask, view.frame):
                    break
        return view

    def _zoom_in(self, view: View, points: np.ndarray) -> View:
        """Return the closest view that a small mask suits and that shows all of it."""
        for spacing in reversed(self.grid.spacings):
            if spacing >= view.frame.spacing:
                continue
            if not 0 < extent(view.mask) < SMALL:
                break
            frame = self.grid.frame(np.concatenate([points, mask_corners(view.mask, view.frame)]), spacing)
            if not all(frame.contains(point) for point in points):
                break
            closer = self.view(frame, view)
            if not closer.mask.any() or self.grid.is_cut(closer.mask, frame):
                break
            view = closer
        return view

    def tiles(self, view: View) -> Iterator[View]:
        """Yield views of the first spacing along the border of a mask that only a wider crop shows whole."""
        if not view.mask.any():
            return
        for frame in self.grid.border_tiles(view.mask, view.frame):
            if self.encoder.accepts_masks or any(frame.contains(click.ijk) for click in self.prompts.positive):
                yield self.view(frame, view)
