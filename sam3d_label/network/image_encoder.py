"""SAM's image encoder made volumetric."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sam3d_label.network.adapter import SpatialAdapter
from sam3d_label.network.attention import WindowAttention
from sam3d_label.network.config import Config
from sam3d_label.network.mlp import MLPBlock
from sam3d_label.network.norm import EPS, ChannelNorm
from sam3d_label.network.stem import Stem


class ImageEncoder(nn.Module):
    """Encode a crop into four feature maps, one after each quarter of the blocks.

    Args:
        config: Sizes of the network.

    Attributes:
        activation_checkpointing: Recompute each block in the backward pass, do not keep its activations.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.grid = config.grid
        self.stem = Stem(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.sam_grid, config.sam_grid, config.width))
        self.depth_embed = nn.Parameter(torch.ones(1, config.grid, config.width))
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.depth))
        self.necks = nn.ModuleList(neck(config.width, config.neck) for _ in range(4))
        self.blocks_per_neck = config.depth // 4
        self.activation_checkpointing = False

    def forward(self, crop: Tensor) -> list[Tensor]:
        """Encode a crop (B, 1, H, W, D) into four maps (B, neck, grid, grid, grid), shallow to deep."""
        x = self.stem(crop) + self._position()
        maps = []
        for index, block in enumerate(self.blocks, start=1):
            recompute = self.activation_checkpointing and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
            if index % self.blocks_per_neck == 0:
                maps.append(self.necks[index // self.blocks_per_neck - 1](x.permute(0, 4, 1, 2, 3)))
        return maps

    def _position(self) -> Tensor:
        """Return SAM's position embedding, averaged to the grid, plus that of depth: (1, grid, grid, grid, C)."""
        in_plane = F.adaptive_avg_pool2d(self.pos_embed.permute(0, 3, 1, 2), self.grid).permute(0, 2, 3, 1)
        return in_plane.unsqueeze(3) + self.depth_embed[:, None, None]


class Block(nn.Module):
    """Spatial adapter, then SAM's transformer block in cubic windows, shifted on even blocks."""

    def __init__(self, config: Config, index: int) -> None:
        super().__init__()
        self.adapter = SpatialAdapter(config.width)
        self.norm1 = nn.LayerNorm(config.width, eps=EPS)
        self.attn = WindowAttention(
            width=config.width,
            heads=config.heads,
            window=config.window,
            shift=config.window // 2 if index % 2 == 0 else 0,
            table_length=config.table_length(index),
        )
        self.norm2 = nn.LayerNorm(config.width, eps=EPS)
        self.mlp = MLPBlock(config.width, config.mlp_ratio * config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens (B, H, W, D, C); the shape is kept."""
        x = self.adapter(x)
        x = x + self.attn(self.norm1(x))
        if torch.is_grad_enabled():
            return x + self.mlp(self.norm2(x))
        return torch.cat([part + self.mlp(self.norm2(part)) for part in x.split(4, dim=1)], dim=1)


def neck(width: int, channels: int) -> nn.Sequential:
    """Return the convolutions from a block's tokens (B, width, grid, grid, grid) to a feature map of these channels."""
    return nn.Sequential(
        nn.Conv3d(width, channels, kernel_size=1, bias=False),
        ChannelNorm(channels),
        nn.Conv3d(channels, channels, kernel_size=3, padding=1, bias=False),
        ChannelNorm(channels),
    )
