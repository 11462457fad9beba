"""The simulated annotator for a whole batch, on the device, in cells of two voxels' edge."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CENTRE_SHARE, NEAR_SHARE = 0.55, 0.15
"""Share of the clicks in the deepest place of the larger error, and of those off it."""

DEEPEST = 20
ROUGHEST = 0.12
"""Largest deviation of a rough mask's border from the truth, as a share of the target's longest edge."""


def to_cells(values: Tensor) -> Tensor:
    """Return which cells (B, d, h, w) are mostly positive in values (B, 1, 2d, 2h, 2w)."""
    return F.avg_pool3d(values, 2)[:, 0] > 0


def target_cells(label: Tensor) -> Tensor:
    """Return the cells that the target fills at least half; if there are none, those that it touches."""
    filled, touched = to_cells(label - 0.5), to_cells(label)
    return torch.where(filled.flatten(1).any(1).view(-1, 1, 1, 1), filled, touched)


def depth(mask: Tensor, most: int = DEEPEST) -> Tensor:
    """Return the steps from each cell of a mask (B, d, h, w) to its border, limited to `most`."""
    left = mask[:, None].to(torch.float16 if mask.is_cuda else torch.float32)
    total = left.clone()
    for _ in range(most):
        outside = F.pad(1 - left, (1,) * 6, value=1.0)
        for kernel in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
            outside = F.max_pool3d(outside, kernel, stride=1)
        left = 1 - outside
        total = total + left
    return total[:, 0]


def places(score: Tensor) -> Tensor:
    """Return the cell (B, 3) with the highest score (B, d, h, w)."""
    best, edge = score.flatten(1).argmax(1), score.shape[-1]
    return torch.stack([best // edge**2, best // edge % edge, best % edge], 1)


def draw(target: Tensor, found: Tensor, *, first: bool = False) -> tuple[Tensor, Tensor]:
    """Draw a click on the larger error of each item: cells (B, 3) and signs (B,)."""
    missed, added = target & ~found, found & ~target
    inside = missed.flatten(1).sum(1) >= added.flatten(1).sum(1)
    region = torch.where(inside.view(-1, 1, 1, 1), missed, added)
    done = ~region.flatten(1).any(1)
    region, inside = torch.where(done.view(-1, 1, 1, 1), target, region), inside | done
    rule, noise = torch.rand(len(target), device=target.device), torch.rand(region.shape, device=target.device)
    deep = torch.where((rule < CENTRE_SHARE).view(-1, 1, 1, 1), depth(region).float() + 0.9 * noise, noise)
    at = places(deep * region)
    if not first:
        off = (rule >= CENTRE_SHARE) & (rule < CENTRE_SHARE + NEAR_SHARE)
        moved = (at + (torch.randn(at.shape, device=at.device) * 1.5).round().long()).clamp(0, target.shape[-1] - 1)
        at = torch.where(off[:, None], moved, at)
        cells = (torch.arange(len(target), device=at.device), *at.unbind(1))
        here = target[cells]
        inside = torch.where(off, here, inside)
    return at, inside.long()


def draw_inside(target: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a click anywhere in each target: cells (B, 3) and signs (B,)."""
    at = places(torch.rand(target.shape, device=target.device) * target)
    return at, torch.ones(len(target), dtype=torch.long, device=target.device)


def spans(target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and last cell (B, 3) of each target; all of the crop where it is empty."""
    lower, upper = [], []
    for axis in range(1, 4):
        there = target.any(dim=tuple(a for a in (1, 2, 3) if a != axis))
        lower.append(there.float().argmax(1))
        upper.append(there.shape[1] - 1 - there.flip(1).float().argmax(1))
    return torch.stack(lower, 1).float(), torch.stack(upper, 1).float()


def loose_boxes(target: Tensor) -> Tensor:
    """Draw a box (B, 1, 2, 3) around each target in voxels of the crop, each face off by up to a tenth of the edge."""
    lower, upper = spans(target)
    slack, off = 0.1 * (upper - lower + 1), torch.rand(2, *lower.shape, device=target.device)
    lower, upper = lower + slack * (1.5 * off[0] - 1), upper + slack * (1.5 * off[1] - 0.5)
    return torch.stack([lower, upper], 1).clamp(0, target.shape[-1] - 1)[:, None] * 2 + 0.5


def rough_masks(target: Tensor) -> Tensor:
    """Imitate the mask logit (B, 1, d, h, w) of a wider view: soft, with a displaced border."""
    b, edge, device = len(target), target.shape[-1], target.device
    lower, upper = spans(target)
    longest = (upper - lower + 1).amax(1)
    reach = torch.rand(b, device=device) * ROUGHEST * longest
    softness = 0.5 + 1.5 * torch.rand(b, device=device)
    nodes = int(torch.randint(4, 12, (1,)))
    noise = F.interpolate(torch.randn(b, 1, nodes, nodes, nodes, device=device), size=(edge,) * 3, mode="trilinear")
    inwards = (depth(target).float() - depth(~target).float())[:, None]
    return (inwards + reach.view(-1, 1, 1, 1, 1) * noise) / softness.view(-1, 1, 1, 1, 1)
