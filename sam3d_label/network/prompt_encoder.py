"""Encode the prompts into the deepest feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_label.network.config import Config
from sam3d_label.network.mlp import MLPBlock
from sam3d_label.network.norm import ChannelNorm

IN, OUT, PADDING = 1, 0, -1
"""Signs of a click: inside, outside, not a click."""


class PromptEncoder(nn.Module):
    """Clicks and boxes become tokens sampled from the map itself; the map then attends to a summary of them.

    Additions to the paper: the sign of a click, the corners of a box, a token for the absence of any prompt, and a
    dense prompt (see `DensePrompt`). They start at zero, so that they have no effect until they are trained.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.crop = config.crop
        self.layers = nn.ModuleList(PromptLayer(config) for _ in range(config.prompt_layers))
        self.sign_embed = nn.Parameter(torch.zeros(2, config.neck))
        self.corner_embed = nn.Parameter(torch.zeros(2, config.neck))
        self.no_prompt_embed = nn.Parameter(torch.zeros(1, config.neck))
        self.dense_embed = DenseEmbed(config)

    def forward(self, feature: Tensor, points: Tensor, signs: Tensor, boxes: Tensor, dense: Tensor) -> Tensor:
        """Write prompts into a map.

        Args:
            feature: (B, C, grid, grid, grid), axes H, W, D.
            points: (B, N, 3) voxels d, h, w of the crop.
            signs: (B, N) of IN, OUT or PADDING.
            boxes: (B, M, 2, 3) lower and upper corner, voxels d, h, w of the crop; NaN where there is none.
            dense: (B, C, half, half, half), axes H, W, D: `DensePrompt` and the geodesic maps.

        Returns:
            The prompted map, of the shape of `feature`.
        """
        feature = feature + self.dense_embed(feature, dense)
        tokens, present = self._tokens(feature, points, signs, boxes)
        b, c, *grid = feature.shape
        image = feature.flatten(2).transpose(1, 2)
        for layer in self.layers:
            image, tokens = layer(image, tokens, present)
        return image.transpose(1, 2).reshape(b, c, *grid)

    def _tokens(self, feature: Tensor, points: Tensor, signs: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return prompt tokens (B, T, C) and which of them exist (B, T), bool."""
        corners = boxes.flatten(1, 2)
        corner_there = ~corners.isnan().any(-1)
        tokens = self._sample(feature, torch.cat([points, corners.nan_to_num()], 1).to(feature.dtype))
        embeds = [
            self.sign_embed[signs.clamp(min=0)],
            self.corner_embed.repeat(boxes.shape[1], 1).expand(len(boxes), -1, -1),
        ]
        there = torch.cat([signs != PADDING, corner_there], 1)
        nothing = ~there.any(1, keepdim=True)
        tokens = tokens + torch.cat(embeds, 1)
        if known_to_hold(~nothing):
            return tokens, there
        absent = self.no_prompt_embed.expand(len(tokens), 1, -1)
        return torch.cat([tokens, absent.to(tokens.dtype)], 1), torch.cat([there, nothing], 1)

    def _sample(self, feature: Tensor, points: Tensor) -> Tensor:
        """Return the map's values (B, N, C) at voxels d, h, w: trilinear between the centres of its cells."""
        depth, height, width = ((points + 0.5) * (2 / self.crop) - 1).unbind(-1)
        where = torch.stack([depth, width, height], -1)[:, :, None, None]
        return F.grid_sample(feature, where, align_corners=False).flatten(2).transpose(1, 2)


class PromptLayer(nn.Module):
    """Prompts and learned global queries attend to each other; the image then attends to the queries."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.neck
        self.global_query = nn.Parameter(torch.randn(1, config.queries, width))
        self.self_attn = Attention(width, width, config.prompt_heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, width // 2, config.prompt_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLPBlock(width, config.prompt_mlp, act=nn.ReLU)
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, width // 2, config.prompt_heads)

    def forward(self, image: Tensor, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Update image tokens (B, V, C) and prompt tokens (B, T, C), of which those in `present` (B, T) exist.

        `cross_attn_token_to_image` is part of the published checkpoints and is never called.
        """
        queries = self.global_query.expand(len(tokens), -1, -1)
        count = queries.shape[1]
        x = torch.cat([queries, tokens.to(queries.dtype)], 1)
        allowed = None if known_to_hold(present) else F.pad(present, (count, 0), value=True)[:, None, None]
        x = self.norm2(x + self.norm1(self.self_attn(x, x, allowed)))
        queries, tokens = x[:, :count], x[:, count:]
        queries = self.norm3(queries + self.mlp(queries))
        return self.norm4(image + self.cross_attn_image_to_token(image, queries)), tokens


class Attention(nn.Module):
    """SAM's attention between prompts and image, in fewer channels inside, with the fused kernel.

    Args:
        width: Channels in and out.
        inner: Channels inside.
        heads: Attention heads.
    """

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, x: Tensor, context: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Let x (B, N, C) attend to context (B, K, C), or only to its `allowed` (B, 1, 1, K) entries."""
        q, k, v = self.q_proj(x), self.k_proj(context), self.v_proj(context)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


def known_to_hold(condition: Tensor) -> bool:
    """Return whether a condition holds everywhere, if this needs no synchronization; False on a GPU."""
    return condition.device.type == "cpu" and bool(condition.all())


class DenseEmbed(nn.Module):
    """The contribution of the dense prompt to a map: convolutions spread drawn prompts over the tokens around them.

    The convolutions are dilated, so that a click has a large receptive field after few layers; the last one starts at
    zero.
    """

    DILATIONS = (1, 2, 4, 1)

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, stride = config.dense, config.half // config.grid
        self.drawn = nn.Conv3d(config.prompt_channels, width, kernel_size=stride, stride=stride)
        self.seen = nn.Conv3d(config.neck, width, kernel_size=1)
        self.spread = nn.ModuleList(
            nn.Sequential(
                ChannelNorm(width),
                nn.GELU(),
                nn.Conv3d(width, width, kernel_size=3, padding=dilation, dilation=dilation),
            )
            for dilation in self.DILATIONS
        )
        self.out = nn.Conv3d(width, config.neck, kernel_size=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, feature: Tensor, dense: Tensor) -> Tensor:
        """Return an update (B, C, grid, grid, grid) of a map of that shape, given the dense prompt."""
        x = self.seen(feature) + self.drawn(dense)
        for layer in self.spread:
            x = x + layer(x)
        return self.out(x)


class DensePrompt(nn.Module):
    """Prompts drawn as a volume on the decoder's grid, as a supplement to the tokens.

    Six channels: the previous mask in -1…1 (0 where there is none), a narrow and a wide Gaussian at each click inside,
    the same at each click outside, and the interior of the boxes.
    """

    SIGMAS = (3.0, 20.0)
    """Standard deviations of a click's Gaussians, voxels of the crop."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.edge = config.half

    def forward(self, points: Tensor, signs: Tensor, boxes: Tensor, mask: Tensor | None) -> Tensor:
        """Draw prompts (shapes as in `PromptEncoder`) and a mask logit (B, 1, D, H, W): (B, 6, half, half, half)."""
        size = (self.edge,) * 3
        centres = torch.arange(self.edge, device=points.device, dtype=points.dtype) * 2 + 0.5
        previous = points.new_zeros(len(points), *size)
        if mask is not None:
            previous = F.interpolate(torch.tanh(mask / 2), size=size, mode="trilinear")[:, 0]
        bumps = [self._bumps(centres, points, signs == sign, sigma) for sign in (IN, OUT) for sigma in self.SIGMAS]
        return torch.stack([previous, *bumps, self._interior(centres, boxes)], 1).permute(0, 1, 3, 4, 2)

    def _bumps(self, centres: Tensor, points: Tensor, chosen: Tensor, sigma: float) -> Tensor:
        if not points.shape[1] or known_to_hold(~chosen):
            return points.new_zeros(len(points), *(self.edge,) * 3)
        along = torch.exp(-((centres - points[..., None]) ** 2) / (2 * sigma**2)) * chosen[..., None, None]
        return torch.einsum("bnx,bny,bnz->bnxyz", *along.unbind(2)).amax(1)

    def _interior(self, centres: Tensor, boxes: Tensor) -> Tensor:
        if not boxes.shape[1]:
            return boxes.new_zeros(len(boxes), *(self.edge,) * 3)
        lower, upper = boxes.unsqueeze(-1).unbind(2)
        inside = ((centres >= lower) & (centres <= upper)).to(boxes.dtype)
        return torch.einsum("bnx,bny,bnz->bnxyz", *inside.unbind(2)).amax(1)
