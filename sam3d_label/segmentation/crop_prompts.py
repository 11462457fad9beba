"""Prompts as the network takes them: tensors in the voxels of one crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sam3d_label.image.frame import CropFrame
from sam3d_label.network import Embedding, PromptableNetwork
from sam3d_label.segmentation.prompts import Box, Prompts


@dataclass(frozen=True)
class CropPrompts:
    """Clicks and boxes of one crop.

    Attributes:
        points: Clicks in the order drawn, voxels d, h, w of the crop, float32 (1, N, 3).
        signs: 1 for a click inside, 0 outside, long (1, N).
        boxes: Lower and upper corners, float32 (1, M, 2, 3).
    """

    points: Tensor
    signs: Tensor
    boxes: Tensor

    @classmethod
    def of(cls, prompts: Prompts, frame: CropFrame, device: torch.device) -> CropPrompts:
        """Return those of some prompts that are in a crop, boxes clipped to it."""
        clicks = [click for click in prompts.clicks if frame.contains(click.ijk)]
        points = frame.to_dhw([click.ijk for click in clicks])
        signs = [[int(click.positive) for click in clicks]]
        clipped = [box_in_crop(box, frame) for box in prompts.boxes]
        boxes = [box for box in clipped if (box[0] < box[1]).all()]
        return cls(
            torch.tensor(points[None], dtype=torch.float32, device=device),
            torch.tensor(signs, dtype=torch.long, device=device).reshape(1, -1),
            torch.tensor(np.array(boxes), dtype=torch.float32, device=device).reshape(1, -1, 2, 3),
        )

    @property
    def is_single_click(self) -> bool:
        """Whether one click is all there is."""
        return self.points.shape[1] == 1 and not self.boxes.shape[1]

    def with_clicks(self, clicks: slice) -> CropPrompts:
        """Return some of the clicks, with all boxes."""
        return CropPrompts(self.points[:, clicks], self.signs[:, clicks], self.boxes)


def decode(
    model: PromptableNetwork,
    embedding: Embedding,
    prompts: CropPrompts,
    mask: Tensor | None = None,
    geodesic_maps: Sequence[Tensor] | None = None,
) -> Tensor:
    """Return the foreground minus background logit (1, 1, D, H, W) of a crop.

    Args:
        model: The network.
        embedding: The crop, encoded.
        prompts: Its prompts.
        mask: Logit of an earlier mask, on the decoder's grid or the crop's; None for none.
        geodesic_maps: Those of the clicks; None to compute them.
    """
    return model.decode(
        embedding, prompts.points, prompts.signs, boxes=prompts.boxes, mask=mask, geodesic_maps=geodesic_maps
    )


def box_in_crop(box: Box, frame: CropFrame) -> np.ndarray:
    """Return lower and upper corner (2, 3) of a box in crop voxels, clipped; not ordered when it is outside."""
    faces = frame.to_dhw(np.add([box.lower, box.upper], [[-0.5], [0.5]]))
    lower, upper = faces.min(0), faces.max(0)
    return np.stack([np.maximum(lower, 0), np.minimum(upper, frame.size - 1)])
