"""An addition to the paper's decoder: image and clicks at all resolutions up to that of the crop."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_label.network.config import Config
from sam3d_label.network.resize import trilinear

VOXELS = 2**3
"""Voxels of the crop in one cell of the decoder's grid."""


class FinePath(nn.Module):
    """A U-Net around the prompted map, which is its bottom; its output is added to the decoder's logit.

    The output is zero before training.

    The paper's decoder uses the image in one convolution at half the crop's resolution, so a click can hardly move an
    edge. Here the encoder part, down to the tokens' grid, runs once per crop, and the decoder part, with the clicks,
    once per click. The last convolution gives each of a cell's eight voxels a separate value (Shi et al., arXiv
    1609.05158), so that the result has the crop's resolution at the cost of half of it.

    Args:
        config: Sizes of the network.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = config.fine
        self.down = nn.ModuleList(
            nn.Sequential(convolution(before, width, stride=2), convolution(width, width))
            for before, width in zip([1, *widths], widths, strict=False)
        )
        self.bottom = convolution(config.neck + widths[-1], widths[-1])
        self.deep = Hourglass((widths[-1], *config.deep)) if config.deep else nn.Identity()
        self.narrow = nn.ModuleList(
            nn.Conv3d(coarser, width, kernel_size=1) for width, coarser in itertools.pairwise(widths)
        )
        self.drawn = nn.ModuleList(
            nn.Conv3d(config.prompt_channels, width, kernel_size=3, padding=1, bias=False) for width in widths[:-1]
        )
        self.join = nn.ModuleList(
            nn.Sequential(
                nn.InstanceNorm3d(width, affine=True),
                nn.LeakyReLU(),
                convolution(width, width),
                convolution(width, width),
            )
            for width in widths[:-1]
        )
        self.out = nn.Conv3d(widths[0], VOXELS, kernel_size=3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)
        self.candidates = Candidates(config) if config.candidates else None

    def descend(self, crop: Tensor) -> tuple[Tensor, ...]:
        """Encode the image (B, 1, H, W, D) from half the crop's resolution to the tokens' grid; once for all clicks."""
        levels = []
        for down in self.down:
            crop = down(crop)
            levels.append(crop)
        return tuple(levels)

    def forward(self, prompted: Tensor, levels: tuple[Tensor, ...], dense: Tensor) -> Tensor:
        """Return the correction of the foreground's logit, (B, 1, crop, crop, crop), axes H, W, D.

        Args:
            prompted: Map 4 with the prompts written in, (B, neck, grid, grid, grid).
            levels: Result of `descend` for the crop.
            dense: The dense prompt, (B, C, half, half, half).
        """
        return self.finish(self.ascend(prompted, levels, dense))

    def ascend(self, prompted: Tensor, levels: tuple[Tensor, ...], dense: Tensor) -> Tensor:
        """Return the input of `finish`, (B, channels, half, half, half); arguments as in `forward`."""
        x = self.deep(self.bottom(torch.cat([prompted, levels[-1]], 1)))
        for level in reversed(range(len(levels) - 1)):
            size = levels[level].shape[2]
            factor = dense.shape[2] // size
            drawn = F.avg_pool3d(dense.contiguous(), factor) if factor > 1 else dense
            x = trilinear(self.narrow[level](x), size, align_corners=False)
            x = self.join[level](x + levels[level] + self.drawn[level](drawn).contiguous())
        return x

    def finish(self, x: Tensor) -> Tensor:
        """Return the result of `forward` from that of `ascend`."""
        return voxels_of_cells(self.out(x))


class Candidates(nn.Module):
    """Several masks that one prompt may mean, each with a predicted Dice (Kirillov et al., arXiv 2304.02643).

    Args:
        config: Sizes of the network.
    """

    HIDDEN = 64

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.count = config.candidates
        width = config.fine[0]
        self.out = nn.Conv3d(width, VOXELS * self.count, kernel_size=3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)
        self.quality = nn.Sequential(
            nn.Linear(2 * width + config.neck + 2 + self.count, self.HIDDEN), nn.GELU(), nn.Linear(self.HIDDEN, 1)
        )
        for parameter in self.quality[-1].parameters():
            nn.init.zeros_(parameter)  # before training, no candidate is preferred

    def forward(self, x: Tensor) -> Tensor:
        """Return each candidate's correction of the decoder's logit, (B, count, 2x, 2y, 2z), from that of `ascend`."""
        b = len(x)
        voxels = voxels_of_cells(self.out(x).unflatten(1, (self.count, VOXELS)).flatten(0, 1))
        return voxels.reshape(b, self.count, *voxels.shape[2:])

    def dice(self, x: Tensor, prompted: Tensor, logits: Tensor) -> Tensor:
        """Return the predicted Dice of each candidate, (B, count), from features inside it and at its border.

        Args:
            x: Result of `ascend`.
            prompted: Map 4 with the prompts written in.
            logits: The candidates, (B, count, D, H, W).
        """
        with torch.autocast(x.device.type, enabled=False):
            precise = torch.promote_types(x.dtype, torch.float32)
            x, prompted, logits = (t.detach().to(precise) for t in (x, prompted, logits))
            inside = F.avg_pool3d(logits.sigmoid(), 2).permute(0, 1, 3, 4, 2)
            border = 4 * inside * (1 - inside)
            coarse = F.avg_pool3d(inside, inside.shape[2] // prompted.shape[2])
            shares = torch.stack([share.mean((2, 3, 4)) for share in (inside, border)], -1)
            seen = [weighted_mean(x, inside), weighted_mean(x, border), weighted_mean(prompted, coarse)]
            which = torch.eye(self.count, dtype=precise, device=x.device).expand(len(x), -1, -1)
            features = torch.cat([*seen, (shares + 1e-6).log(), which], -1)
            return self.quality(features)[..., 0].sigmoid()


def weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of x (B, C, n, n, n) under each of several weights (B, K, n, n, n): (B, K, C)."""
    total = torch.einsum("bcv,bkv->bkc", x.flatten(2), weights.flatten(2))
    return total / (weights.flatten(2).sum(2)[..., None] + 1e-3)


class Hourglass(nn.Module):
    """A U-Net below a map, whose output is added to the map and starts at zero.

    Args:
        widths: Channels of the map and of each halving below it.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        width, coarser, *_ = widths
        self.down = nn.Sequential(convolution(width, coarser, stride=2), convolution(coarser, coarser))
        self.below = Hourglass(widths[1:]) if len(widths) > 2 else nn.Identity()
        self.narrow = nn.Conv3d(coarser, width, kernel_size=1)
        self.join = nn.Sequential(convolution(2 * width, width), nn.Conv3d(width, width, kernel_size=1))
        for parameter in self.join[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, width, x, y, z) plus the output of the U-Net; x, y and z are even at every halving."""
        seen = trilinear(self.narrow(self.below(self.down(x))), x.shape[2], align_corners=False)
        return x + self.join(torch.cat([x, seen], 1))


def voxels_of_cells(cells: Tensor) -> Tensor:
    """Rearrange eight values for each cell, (B, 8, x, y, z), as voxels, (B, 1, 2x, 2y, 2z)."""
    b, _, x, y, z = cells.shape
    return cells.reshape(b, 1, 2, 2, 2, x, y, z).permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, 1, 2 * x, 2 * y, 2 * z)


def convolution(before: int, width: int, stride: int = 1) -> nn.Sequential:
    """Return a 3x3x3 convolution with instance normalisation and leaky ReLU, from `before` to `width` channels."""
    return nn.Sequential(
        nn.Conv3d(before, width, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.InstanceNorm3d(width, affine=True),
        nn.LeakyReLU(),
    )
