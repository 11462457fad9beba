"""Volumetric patch embedding as a single convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_label.network.config import Config


class PatchEmbed(nn.Module):
    """SAM's 2D patch embedding; only its weights are used, by `Stem`."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)


class Stem(nn.Module):
    """Embed the voxels of a crop as tokens.

    By definition the crop is enlarged by `upsample` (trilinear, align_corners=False), SAM's frozen 2D patch
    embedding runs on each slice, and `slice_embed`, depth-wise over depth, merges `patch` slices. All three
    are linear, so together they are one strided convolution over a token's voxels and one neighbour on each
    side.
    """

    interpolation: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.stride = config.stride
        self.patch_embed = PatchEmbed(config.width, config.patch)
        self.slice_embed = nn.Conv3d(
            config.width, config.width, (1, 1, config.patch), (1, 1, config.patch), groups=config.width
        )
        self.register_buffer("interpolation", interpolation_matrix(config.patch, config.upsample), persistent=False)

    def fused_kernel(self) -> tuple[Tensor, Tensor]:
        """Return kernel (C, 1, s + 2, s + 2, s + 2) over H, W, D and bias (C); s is the edge of a token, voxels."""
        in_plane = torch.einsum(
            "chw,hx,wy->cxy", self.patch_embed.proj.weight.sum(1), self.interpolation, self.interpolation
        )
        along_depth = self.slice_embed.weight[:, 0, 0, 0] @ self.interpolation
        kernel = torch.einsum("cxy,cz->cxyz", in_plane, along_depth).unsqueeze(1)
        assert self.patch_embed.proj.bias is not None
        assert self.slice_embed.bias is not None
        bias = self.patch_embed.proj.bias * self.slice_embed.weight.sum((1, 2, 3, 4)) + self.slice_embed.bias
        return kernel, bias

    def forward(self, crop: Tensor) -> Tensor:
        """Embed a crop (B, 1, H, W, D) into tokens (B, H/s, W/s, D/s, C)."""
        kernel, bias = self.fused_kernel()
        padded = F.pad(crop, (1,) * 6, mode="replicate")
        return F.conv3d(padded, kernel, bias, stride=self.stride).permute(0, 2, 3, 4, 1)


def interpolation_matrix(patch: int, upsample: int) -> Tensor:
    """Return the (patch, patch / upsample + 2) matrix of linear upsampling, align_corners=False, inside a signal."""
    voxels = patch // upsample + 2
    rows = F.interpolate(torch.eye(voxels).unsqueeze(0), scale_factor=upsample, mode="linear", align_corners=False)
    return rows[0, :, upsample:-upsample].T.contiguous()
