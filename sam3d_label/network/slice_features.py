"""Features of the slices of a crop from LiteMedSAM's frozen 2D encoder, and their way into the volumetric network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_label.network.config import Config
from sam3d_label.network.prompt_encoder import IN, OUT
from sam3d_label.network.resize import trilinear
from sam3d_label.network.tiny_vit import MIDDLE, NECK, STRIDE, TinyViT

WIDTH, LAYERS, KEY = 64, 3, 32
"""Channels and layers of the 3D network over the features, and length of the keys."""

SLICES_AT_ONCE = {"cpu": 1, "cuda": 64}
"""Slices that the encoder takes at a time, by the device; on a CPU, one takes the least time, as it fits the cache."""

LEAST_RANGE = 1e-3
"""Range of intensities of a crop, at least, that is spread over 0…1."""


class SliceContribution(NamedTuple):
    """What the slices add to the network.

    Attributes:
        levels: Additions to the levels of the fine path's encoder but the first.
        deepest: Addition to the deepest feature map, (B, neck, grid, grid, grid).
        keys: Unit vectors whose products are the likeness of two places, (B, 32, crop / 4, crop / 4, crop / 4).
    """

    levels: tuple[Tensor, ...]
    deepest: Tensor
    keys: Tensor


class SliceFeatures(nn.Module):
    """A small 3D network on the features of axial slices; its additions are zero before training.

    One slice, the mean of two planes, stands for four, the edge of the encoder's features, so that features are
    cubic. The encoder is never trained: its weights are the same file for all networks.

    Args:
        config: Sizes of the network.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.encoder = TinyViT().requires_grad_(False)
        self.narrow = nn.Conv3d(MIDDLE + NECK, WIDTH, kernel_size=1)
        self.mix = nn.ModuleList(
            nn.Sequential(
                nn.InstanceNorm3d(WIDTH, affine=True),
                nn.LeakyReLU(),
                nn.Conv3d(WIDTH, WIDTH, kernel_size=3, padding=1),
            )
            for _ in range(LAYERS)
        )
        self.levels = nn.ModuleList(reduction(width, 2**index) for index, width in enumerate(config.fine[1:]))
        self.deepest = reduction(config.neck, config.stride // STRIDE)
        self.key = nn.Conv3d(MIDDLE + NECK, KEY, kernel_size=1)

    def forward(self, crop: Tensor) -> SliceContribution:
        """Return what the slices of a crop (B, 1, H, W, D) add to the network."""
        features = self.encode(crop)
        x = self.narrow(features)
        for layer in self.mix:
            x = x + layer(x)
        keys = F.normalize(self.key(features).to(crop.dtype), dim=1)
        return SliceContribution(tuple(level(x) for level in self.levels), self.deepest(x), keys)

    @torch.no_grad()
    def encode(self, crop: Tensor) -> Tensor:
        """Return the encoder's features of a crop (B, 1, H, W, D), (B, 416, H / 4, W / 4, D / 4).

        The encoder computes in the precision of the surrounding autocast context, as the rest of the network does.
        """
        maps = [self.encoder(part) for part in grey_slices(crop).split(SLICES_AT_ONCE.get(crop.device.type, 1))]
        middle, neck = (torch.cat(part).to(crop.dtype) for part in zip(*maps, strict=True))
        middle = F.layer_norm(middle.movedim(1, -1), (MIDDLE,)).movedim(-1, 1)
        return torch.cat([middle, neck], 1).unflatten(0, (len(crop), -1)).permute(0, 2, 3, 4, 1)


def grey_slices(crop: Tensor) -> Tensor:
    """Return the slices (B · D / 4, 1, H, W) of a crop (B, 1, H, W, D), its range of intensities spread over 0…1."""
    lowest, highest = (extreme.view(-1, 1, 1, 1, 1) for extreme in crop.flatten(1).aminmax(dim=1))
    grey = (crop - lowest) / (highest - lowest).clamp(min=LEAST_RANGE)
    middle = STRIDE // 2
    return ((grey[..., middle - 1 :: STRIDE] + grey[..., middle::STRIDE]) / 2).permute(0, 4, 1, 2, 3).flatten(0, 1)


def reduction(width: int, stride: int) -> nn.Conv3d:
    """Return a convolution from the network's channels to a coarser map, zero before training."""
    layer = nn.Conv3d(WIDTH, width, kernel_size=stride, stride=stride)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def likeness(keys: Tensor, points: Tensor, signs: Tensor, size: int) -> Tensor:
    """Return the likeness of each place to the clicks, as channels of the dense prompt.

    Args:
        keys: Those of `SliceContribution`.
        points: (B, N, 3) voxels d, h, w of the crop.
        signs: (B, N), see `PromptEncoder`.
        size: Edge of the result.

    Returns:
        (B, 4, size, size, size): the largest and the mean likeness to the clicks inside, then outside; 0 without any.
    """
    b, n, edge = *points.shape[:2], keys.shape[-1]
    if not n:
        return keys.new_zeros(b, 4, size, size, size)
    h, w, d = (points / STRIDE).long().clamp(0, edge - 1)[..., [1, 2, 0]].unbind(-1)
    clicked = keys.movedim(1, -1)[torch.arange(b, device=keys.device)[:, None], h, w, d]
    alike = torch.einsum("bchwd,bnc->bnhwd", keys, clicked)
    channels = []
    for sign in (IN, OUT):
        chosen = (signs == sign)[..., None, None, None]
        largest = alike.masked_fill(~chosen, -1).amax(1) * chosen.any(1)
        channels += [largest, (alike * chosen).sum(1) / chosen.sum(1).clamp(min=1)]
    return trilinear(torch.stack(channels, 1), size, align_corners=False)
