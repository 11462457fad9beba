"""The spatial adapter, which gives a frozen 2D block access to neighbouring slices."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_label.network.depthwise import DepthwiseConvolution


class SpatialAdapter(nn.Module):
    """Linear down, depth-wise 3x3x3 convolution, linear up, each with ReLU, plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, width // 2)
        self.conv = nn.Conv3d(width // 2, width // 2, kernel_size=3, padding=1, groups=width // 2)
        self.linear2 = nn.Linear(width // 2, width)

    def forward(self, x: Tensor) -> Tensor:
        """Adapt tokens (B, H, W, D, C); the shape is kept."""
        y = F.relu(self.linear1(x)).permute(0, 4, 1, 2, 3)
        if y.is_cuda and torch.is_grad_enabled():
            y = DepthwiseConvolution.apply(y.contiguous(), self.conv.weight, self.conv.bias)
        else:
            y = self.conv(y)
        y = F.relu(y).permute(0, 2, 3, 4, 1)
        return x + F.relu(self.linear2(y))
