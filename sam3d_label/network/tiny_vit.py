"""The 2D image encoder of LiteMedSAM: a TinyViT (Wu et al., arXiv 2207.10666) that starts at full resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_label.network.config import SLICE_STRIDE
from sam3d_label.network.norm import ChannelNorm

WIDTHS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (0, 4, 5, 10), (0, 7, 14, 7)
"""Channels, blocks, attention heads and edge of the windows of the four stages; the first has no attention."""

STRIDES = (2, 2, 1)
"""Reduction of the resolution after each stage but the last."""

STRIDE = SLICE_STRIDE
"""Edge of a feature in pixels of the slice; the edges of a slice are multiples of it."""

EXPANSION = 4
"""Width inside a block, as a multiple of its own."""

MIDDLE, NECK = WIDTHS[2], 256
"""Channels of the two feature maps."""


class TinyViT(nn.Module):
    """Encodes grey slices; batch norms are part of the convolutions (see `weights.litemedsam`)."""

    def __init__(self) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.patch_embed = nn.Sequential(nn.Conv2d(1, first // 2, 1), nn.GELU(), nn.Conv2d(first // 2, first, 1))
        self.layers = nn.ModuleList(Stage(index) for index in range(len(WIDTHS)))
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], NECK, 1, bias=False),
            ChannelNorm(NECK),
            nn.Conv2d(NECK, NECK, 3, padding=1, bias=False),
            ChannelNorm(NECK),
        )

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """Encode slices (N, 1, H, W) with values in 0…1.

        Returns:
            The map before the third stage, (N, 160, H / 4, W / 4), and the final one, (N, 256, H / 4, W / 4).

        Raises:
            ValueError: H or W is no multiple of 4.
        """
        if slices.ndim != 4 or slices.shape[1] != 1 or slices.shape[2] % STRIDE or slices.shape[3] % STRIDE:
            raise ValueError(f"slices have shape (N, 1, H, W), H and W multiples of 4, not {tuple(slices.shape)}")
        x = self.patch_embed(slices)
        middle = self.layers[1](self.layers[0](x))
        return middle, self.neck(self.layers[3](self.layers[2](middle)))


class Stage(nn.Module):
    """Blocks of one resolution, and the step to the next stage.

    Args:
        index: Number of the stage, from 0.
    """

    def __init__(self, index: int) -> None:
        super().__init__()
        width = WIDTHS[index]
        self.blocks = nn.Sequential(
            *(
                AttentionBlock(width, HEADS[index], WINDOWS[index]) if HEADS[index] else ConvolutionBlock(width)
                for _ in range(DEPTHS[index])
            )
        )
        last = index == len(WIDTHS) - 1
        self.downsample = nn.Identity() if last else Downsample(width, WIDTHS[index + 1], STRIDES[index])

    def forward(self, x: Tensor) -> Tensor:
        """Return the input (N, C, H, W) of the next stage."""
        return self.downsample(self.blocks(x))


class Downsample(nn.Module):
    """The step to the next stage: other channels, and a lower resolution."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=width)
        self.conv3 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H / stride, W / stride)."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class ConvolutionBlock(nn.Module):
    """An inverted bottleneck: wide inside, with a depth-wise convolution there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = EXPANSION * width
        self.conv1 = nn.Conv2d(width, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.conv3 = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's result for x (N, C, H, W), of the same shape."""
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class AttentionBlock(nn.Module):
    """Attention in windows, a depth-wise convolution across their borders, and an MLP."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's result for x (N, C, H, W), of the same shape.

        Windows that reach over the edge are filled with zeros, which take part in the attention, as in the training
        of the weights.
        """
        x = x.permute(0, 2, 3, 1)
        _, height, width, _ = x.shape
        edge = self.window
        padded = F.pad(x, (0, 0, 0, -width % edge, 0, -height % edge))
        rows, columns = padded.shape[1] // edge, padded.shape[2] // edge
        windows = padded.unflatten(2, (columns, edge)).unflatten(1, (rows, edge)).transpose(2, 3)
        seen = self.attn(windows.reshape(-1, edge * edge, x.shape[3]))
        seen = seen.view_as(windows).transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :height, :width]
        x = self.local_conv((x + seen).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (x + self.mlp(x)).permute(0, 3, 1, 2)


class WindowAttention(nn.Module):
    """Attention between the positions of a window, with a learned bias for each distance along the two axes."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        row, column = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        apart = [(axis.flatten()[:, None] - axis.flatten()).abs() for axis in (row, column)]
        self.register_buffer("distance", apart[0] * window + apart[1], persistent=False)
        self.distance: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended windows of x (windows, positions, C), of the same shape."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        bias = self.attention_biases[None, :, self.distance].to(q.dtype)  # the fast kernels take a bias of four axes
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(attended.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers after a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, EXPANSION * width)
        self.fc2 = nn.Linear(EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform the last axis of x (..., C); the shape is kept."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))
