"""Two passes for one set of prompts: what the surest of them means alone, then all of them as corrections of that.

Clicks that correct a mask lie off the target's middle, often at its border, and a network that sees them all at once
cannot tell them from the click that meant the whole. So one prompt opens: the boxes or, without any, the click inside
whose mask the network is surest of. Its mask is given along when all prompts are decoded. The result depends on the set
of prompts, not on their order, and a further click does not move what the opening says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from sam3d_label.network import SAM3D, Embedding

CropPrompts = tuple[Tensor, Tensor, Tensor]
"""Points (1, N, 3), signs (1, N) and boxes (1, M, 2, 3) of one crop, as `SAM3D.decode` takes them."""

Remember = Callable[[tuple[float, ...], Callable[[], Tensor]], Tensor]
"""Keeps what a click (voxels d, h, w of the crop) means alone, (1, 1, D, H, W), or makes it."""


def opening(model: SAM3D, embedding: Embedding, prompts: CropPrompts, remember: Remember) -> Tensor | None:
    """The logit (1, 1, D, H, W) that the prompts correct; None when there is nothing to correct it with.

    Args:
        model: The network.
        embedding: A crop, encoded, of one item.
        prompts: All prompts of the crop.
        remember: Keeps what a click means alone.
    """
    points, signs, boxes = prompts
    inside = sorted(tuple(point) for point in points[0][signs[0] == 1].tolist())
    if boxes.shape[1]:
        return model.decode(embedding, points[:, :0], signs[:, :0], boxes=boxes) if points.shape[1] else None
    if points.shape[1] < 2:
        return None
    if not inside:
        return model.decode(embedding, points[:, :0], signs[:, :0])
    return surest(remember(click, partial(alone, model, embedding, click, points)) for click in inside)


def alone(model: SAM3D, embedding: Embedding, click: tuple[float, ...], like: Tensor) -> Tensor:
    """What one click inside means, (1, 1, D, H, W); the points `like` say where and how tensors are kept."""
    return model.decode(embedding, like.new_tensor(click)[None, None], torch.ones(1, 1, device=like.device))


def surest(logits: Iterable[Tensor]) -> Tensor:
    """The logit whose mask the network is surest of."""
    return max(logits, key=sureness)


def sureness(logit: Tensor) -> float:
    """Mean probability in the mask of a logit; 0 when it is empty."""
    inside = logit[logit > 0]
    return float(inside.float().sigmoid().mean()) if inside.numel() else 0.0
