"""Layer normalisation as SAM uses it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of (B, C, H, W) or (B, C, H, W, D), as SAM's LayerNorm2d."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the channels at each position; the shape is kept."""
        return F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, EPS).movedim(-1, 1)
