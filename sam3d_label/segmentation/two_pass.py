"""Two passes for one set of prompts: what the first of them means alone, then all of them as corrections of that.

Clicks that correct a mask lie off the target's middle, often at its border, and a network that sees them all at once
cannot tell them from the click that meant the whole. So one prompt opens: the boxes or, without any, the first click
inside. Its mask is given along when all prompts are decoded. A further click then does not move what the opening says;
the order of the corrections does not matter, and nothing but the prompts need be remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sam3d_label.network import SAM3D, Embedding

CropPrompts = tuple[Tensor, Tensor, Tensor]
"""Points (1, N, 3), in the order drawn, signs (1, N) and boxes (1, M, 2, 3) of one crop, as `SAM3D.decode` has them."""

Remember = Callable[[tuple[float, ...], Callable[[], Tensor]], Tensor]
"""Keeps what a click (voxels d, h, w of the crop) means alone, (1, 1, D, H, W), or makes it."""


def opening(
    model: SAM3D,
    embedding: Embedding,
    prompts: CropPrompts,
    remember: Remember,
    reach: Sequence[Tensor] | None = None,
) -> Tensor | None:
    """The logit (1, 1, D, H, W) that the prompts correct; None when there is nothing to correct it with.

    Args:
        model: The network.
        embedding: A crop, encoded, of one item.
        prompts: All prompts of the crop.
        remember: Keeps what a click means alone.
        reach: The geodesic maps of all clicks; None where the network takes none, or shall make them itself.
    """
    points, signs, boxes = prompts
    if boxes.shape[1]:
        return model.decode(embedding, points[:, :0], signs[:, :0], boxes=boxes) if points.shape[1] else None
    if points.shape[1] < 2:
        return None
    inside = torch.nonzero(signs[0] == 1)[:, 0].tolist()
    if not inside:
        return model.decode(embedding, points[:, :0], signs[:, :0])
    first = slice(inside[0], inside[0] + 1)
    click = tuple(points[0, inside[0]].tolist())
    known: dict[str, Any] = {} if reach is None else {"reach": reach[first]}
    return remember(click, lambda: model.decode(embedding, points[:, first], signs[:, first], **known))
