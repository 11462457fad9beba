"""The plain formulation of the network: each step as the architecture is described, repeated for every click.

It is the yardstick of `sam3d_label.network`, which reorders the same arithmetic: the benchmark times it, the
tests compare values and gradients with it. It owns no parameter but reads those of a `SAM3D`, and shares no
forward code with it. Nothing else should use it: it is slow and large on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_label.network.adapter import SpatialAdapter
from sam3d_label.network.attention import WindowAttention
from sam3d_label.network.image_encoder import Block
from sam3d_label.network.prompt_encoder import Attention, DenseEmbed, PromptLayer
from sam3d_label.network.sam3d import SAM3D
from sam3d_label.network.stem import Stem


class PlainSAM3D:
    """3DSAM-adapter as it is written down.

    Args:
        network: Where the parameters are read from, at each call.
    """

    def __init__(self, network: SAM3D) -> None:
        self.network = network
        self.config = network.config

    def click(
        self,
        crop: Tensor,
        points: Tensor,
        signs: Tensor,
        *,
        boxes: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the foreground minus background logit (B, 1, D, H, W) of crops (B, 1, D, H, W).

        Prompts are as in `SAM3D.decode`. Each item of the batch is processed separately, with exactly the prompts
        it has: padding never enters.
        """
        logits = []
        for item in range(len(crop)):
            there = signs[item] >= 0
            corners = points.new_empty(0, 2, 3) if boxes is None else boxes[item]
            corners = corners[~corners.isnan().flatten(1).any(1)]
            earlier = None if mask is None else mask[item]
            logits.append(self._one(crop[item], points[item][there], signs[item][there], corners, earlier))
        return torch.stack(logits)

    def feature_maps(self, crop: Tensor) -> list[Tensor]:
        """Return the four maps (1, neck, grid, grid, grid), axes H, W, D, of one crop (1, D, H, W)."""
        encoder = self.network.image_encoder
        x = embed_patches(encoder.stem, crop.unsqueeze(0), self.config.patch, self.config.upsample)
        x = x + self._position()
        maps: list[Tensor] = []
        for index, block in enumerate(cast("Iterable[Block]", encoder.blocks), start=1):
            x = transform(block, x)
            if index % (self.config.depth // 4) == 0:
                maps.append(neck(cast(nn.Sequential, encoder.necks[len(maps)]), x.permute(0, 4, 1, 2, 3)))
        return maps

    def _one(self, crop: Tensor, points: Tensor, signs: Tensor, boxes: Tensor, mask: Tensor | None) -> Tensor:
        maps = self.feature_maps(crop)
        drawing = draw(self.config.half, points.to(crop), signs, boxes.to(crop), mask)
        maps[3] = self._prompt(maps[3], points, signs, boxes, drawing)
        return self._decode(maps, crop, drawing)

    def _position(self) -> Tensor:
        encoder = self.network.image_encoder
        pooled = F.avg_pool2d(encoder.pos_embed.permute(0, 3, 1, 2), self.config.sam_grid // self.config.grid)
        in_plane = pooled.permute(0, 2, 3, 1).unsqueeze(3).repeat(1, 1, 1, self.config.grid, 1)
        return in_plane + encoder.depth_embed.view(1, 1, 1, self.config.grid, self.config.width)

    def _prompt(self, feature: Tensor, points: Tensor, signs: Tensor, boxes: Tensor, drawing: Tensor) -> Tensor:
        """Write the prompts of one item into its map (1, C, grid, grid, grid)."""
        encoder = self.network.prompt_encoder
        feature = feature + spread(encoder.dense_embed, feature, drawing, self.config.half // self.config.grid)
        tokens = [
            sample(feature, point, self.config.stride) + encoder.sign_embed[sign]
            for point, sign in zip(points, signs.tolist(), strict=True)
        ]
        for box in boxes:
            tokens += [
                sample(feature, corner, self.config.stride) + encoder.corner_embed[which]
                for which, corner in enumerate(box)
            ]
        if not tokens:
            tokens = [encoder.no_prompt_embed[0]]
        prompts, image = torch.stack(tokens), feature[0].flatten(1).T
        for layer in cast("Iterable[PromptLayer]", encoder.layers):
            image, prompts = prompt_layer(layer, image, prompts)
        return image.T.reshape(feature.shape)

    def _decode(self, maps: list[Tensor], crop: Tensor, drawing: Tensor) -> Tensor:
        """Return the logit (1, D, H, W) of one item: all inputs concatenated for one convolution."""
        decoder, half = self.network.mask_decoder, (self.config.half,) * 3
        inputs = [
            F.interpolate(decoder_head(cast(nn.Sequential, head), feature), half, mode="trilinear", align_corners=True)
            for head, feature in zip(decoder.heads, maps, strict=True)
        ]
        image = F.interpolate(crop.unsqueeze(0), half, mode="trilinear", align_corners=False)
        inputs += [image.permute(0, 1, 3, 4, 2), drawing]
        kernel = torch.cat([decoder.fuse.weight, decoder.fuse_dense.weight], 1)
        fused = torch.relu(F.instance_norm(F.conv3d(torch.cat(inputs, 1), kernel, padding=1)))
        classes = F.conv3d(fused, decoder.classify.weight, padding=1)
        classes = F.interpolate(classes, (self.config.crop,) * 3, mode="trilinear", align_corners=True)
        return (classes[:, 1] - classes[:, 0]).permute(0, 3, 1, 2)


def embed_patches(stem: Stem, crop: Tensor, patch: int, upsample: int) -> Tensor:
    """Return tokens (1, h, w, d, C) of a crop (1, 1, D, H, W): enlarge, embed slice by slice, merge the slices."""
    colour = crop.repeat(1, 3, 1, 1, 1)
    enlarged = F.interpolate(colour, scale_factor=upsample, mode="trilinear", align_corners=False)
    in_plane, over_depth = stem.patch_embed.proj, stem.slice_embed
    slices = [F.conv2d(part, in_plane.weight, in_plane.bias, stride=patch) for part in enlarged.unbind(2)]
    volume = torch.stack(slices, -1)
    merged = F.conv3d(volume, over_depth.weight, over_depth.bias, stride=(1, 1, patch), groups=over_depth.groups)
    return merged.permute(0, 2, 3, 4, 1)


def transform(block: Block, x: Tensor) -> Tensor:
    """Return one block on tokens (1, h, w, d, C)."""
    x = adapt(block.adapter, x)
    x = x + attend(block.attn, layer_norm(block.norm1, x))
    return x + block.mlp(layer_norm(block.norm2, x))


def adapt(adapter: SpatialAdapter, x: Tensor) -> Tensor:
    """Return the spatial adapter on tokens (1, h, w, d, C)."""
    conv = adapter.conv
    y = torch.relu(F.linear(x, adapter.linear1.weight, adapter.linear1.bias))
    y = F.conv3d(y.permute(0, 4, 1, 2, 3), conv.weight, conv.bias, padding=1, groups=conv.groups)
    y = torch.relu(y).permute(0, 2, 3, 4, 1)
    return x + torch.relu(F.linear(y, adapter.linear2.weight, adapter.linear2.bias))


def attend(layer: WindowAttention, x: Tensor) -> Tensor:
    """Return attention in (shifted) windows of tokens (1, h, w, d, C), with every score stored."""
    shape, window, shift, heads = x.shape, layer.window, layer.shift, layer.heads
    windows = cut(torch.roll(x, (-shift,) * 3, (1, 2, 3)), window)
    n, tokens, width = windows.shape
    qkv = F.linear(windows, layer.qkv.weight, layer.qkv.bias).view(n, tokens, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = (q * (width // heads) ** -0.5) @ k.transpose(-2, -1)
    scores = scores + relative_bias(layer, q)
    if shift:
        scores = scores + shift_mask(shape[1:4], window, shift).to(scores).unsqueeze(1)
    attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, width)
    y = paste(F.linear(attended, layer.proj.weight, layer.proj.bias), window, shape)
    return torch.roll(y, (shift,) * 3, (1, 2, 3))


def relative_bias(layer: WindowAttention, q: Tensor) -> Tensor:
    """Return decomposed relative positions of unscaled queries (n, heads, w ** 3, c): (n, heads, w ** 3, w ** 3)."""
    n, heads, tokens, c = q.shape
    w = layer.window
    q = q.reshape(n, heads, w, w, w, c)
    rows = [relative_rows(table, w) for table in (layer.rel_pos_h, layer.rel_pos_w, layer.rel_pos_d)]
    along_h = torch.einsum("nahwdc,hkc->nahwdk", q, rows[0])[..., :, None, None]
    along_w = torch.einsum("nahwdc,wkc->nahwdk", q, rows[1])[..., None, :, None]
    along_d = torch.einsum("nahwdc,dkc->nahwdk", q, rows[2])[..., None, None, :]
    bias = along_h * layer.lr + along_w * layer.lr + along_d * layer.lr
    return bias.reshape(n, heads, tokens, tokens)


def relative_rows(table: Tensor, window: int) -> Tensor:
    """Return the row of the table, resampled to 2 * window - 1, of each query and key coordinate: (w, w, c)."""
    table = F.interpolate(table.T.unsqueeze(0), size=2 * window - 1, mode="linear")[0].T
    rows = [torch.stack([table[query - key + window - 1] for key in range(window)]) for query in range(window)]
    return torch.stack(rows)


def shift_mask(grid: Iterable[int], window: int, shift: int) -> Tensor:
    """Return Swin's mask of a cyclic shift, -100 between regions: (windows, window ** 3, window ** 3)."""
    sizes = tuple(grid)
    region = torch.zeros(1, *sizes, 1)
    parts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for number, (h, w, d) in enumerate((h, w, d) for h in parts for w in parts for d in parts):
        region[:, h, w, d] = number
    regions = cut(region, window).squeeze(-1)
    return (regions.unsqueeze(1) != regions.unsqueeze(2)) * -100.0


def cut(x: Tensor, window: int) -> Tensor:
    """Return tokens (1, h, w, d, C) to windows (n, window ** 3, C)."""
    cubes = x[0].unfold(0, window, window).unfold(1, window, window).unfold(2, window, window)
    return cubes.flatten(0, 2).permute(0, 2, 3, 4, 1).flatten(1, 3)


def paste(windows: Tensor, window: int, shape: torch.Size) -> Tensor:
    """Return the inverse of `cut`, for tokens of the given shape."""
    _, h, w, d, c = shape
    cubes = windows.view(h // window, w // window, d // window, window, window, window, c)
    return cubes.permute(0, 3, 1, 4, 2, 5, 6).reshape(shape)


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Normalise the last axis."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def neck(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Return a feature map from tokens (1, C, h, w, d)."""
    squeeze, conv = convolutions(layers)
    _, norm1, _, norm2 = layers
    x = channel_norm(norm1, F.conv3d(x, squeeze.weight))
    return channel_norm(norm2, F.conv3d(x, conv.weight, padding=1))


def convolutions(layers: nn.Sequential) -> list[nn.Conv3d]:
    """Return the convolutions among some layers."""
    return [layer for layer in layers if isinstance(layer, nn.Conv3d)]


def channel_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise each voxel's channels (1, C, h, w, d)."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    weight, bias = (cast(Tensor, p).view(-1, 1, 1, 1) for p in (norm.weight, norm.bias))
    return weight * (x - mean) / torch.sqrt(variance + 1e-6) + bias


def decoder_head(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Return the two convolutions that every map passes."""
    for conv in convolutions(layers):
        x = torch.relu(F.instance_norm(F.conv3d(x, conv.weight, padding=1)))
    return x


def sample(feature: Tensor, point: Tensor, stride: int) -> Tensor:
    """Return the map (1, C, H, W, D) at a voxel (d, h, w): (C), linear between cell centres, to zero outside."""
    cell = ((point.to(feature.dtype) + 0.5) / stride - 0.5)[[1, 2, 0]]
    along = [
        torch.relu(1 - (torch.arange(n, device=cell.device) - x).abs())
        for n, x in zip(feature.shape[2:], cell, strict=True)
    ]
    return torch.einsum("chwd,h,w,d->c", feature[0], *along)


def spread(layer: DenseEmbed, feature: Tensor, drawing: Tensor, stride: int) -> Tensor:
    """Return the contribution of drawn prompts (1, 6, half, half, half) to a map (1, C, h, w, d)."""
    x = F.conv3d(feature, layer.seen.weight, layer.seen.bias)
    x = x + F.conv3d(drawing, layer.drawn.weight, layer.drawn.bias, stride=stride)
    for step, dilation in zip(cast("Iterable[nn.Sequential]", layer.spread), (1, 2, 4, 1), strict=True):
        (conv,) = convolutions(step)
        y = F.gelu(channel_norm(step[0], x))
        x = x + F.conv3d(y, conv.weight, conv.bias, padding=dilation, dilation=dilation)
    return F.conv3d(x, layer.out.weight, layer.out.bias)


def prompt_layer(layer: PromptLayer, image: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Return one layer of the prompt encoder on image tokens (V, C) and prompt tokens (T, C)."""
    x = torch.cat([layer.global_query[0], prompts])
    x = layer_norm(layer.norm2, x + layer_norm(layer.norm1, cross_attend(layer.self_attn, x, x)))
    queries, prompts = x.split([layer.global_query.shape[1], len(prompts)])
    queries = layer_norm(layer.norm3, queries + layer.mlp(queries))
    return layer_norm(layer.norm4, image + cross_attend(layer.cross_attn_image_to_token, image, queries)), prompts


def cross_attend(layer: Attention, x: Tensor, context: Tensor) -> Tensor:
    """Let tokens (N, C) attend to a context (K, C), head by head."""
    parts = []
    projected = [
        F.linear(t, p.weight, p.bias).chunk(layer.heads, -1)
        for t, p in ((x, layer.q_proj), (context, layer.k_proj), (context, layer.v_proj))
    ]
    for q, k, v in zip(*projected, strict=True):
        parts.append(((q @ k.T) / q.shape[-1] ** 0.5).softmax(-1) @ v)
    return F.linear(torch.cat(parts, -1), layer.out_proj.weight, layer.out_proj.bias)


def draw(half: int, points: Tensor, signs: Tensor, boxes: Tensor, mask: Tensor | None) -> Tensor:
    """Return the dense prompt (1, 6, half, half, half), axes H, W, D.

    Its channels: the earlier mask, clicks inside drawn narrow and wide, clicks outside in the same way, boxes.
    """
    axis = torch.arange(half, device=points.device, dtype=points.dtype) * 2 + 0.5
    d, h, w = torch.meshgrid(axis, axis, axis, indexing="ij")
    where = torch.stack([d, h, w], -1)
    drawing = points.new_zeros(6, half, half, half)
    if mask is not None:
        drawing[0] = F.avg_pool3d(mask.sigmoid() * 2 - 1, 2)[0]
    for point, sign in zip(points, signs.tolist(), strict=True):
        distance = (where - point).square().sum(-1)
        for channel, sigma in zip((1, 2) if sign == 1 else (3, 4), (3.0, 20.0), strict=True):
            drawing[channel] = torch.maximum(drawing[channel], torch.exp(-distance / (2 * sigma**2)))
    for lower, upper in boxes:
        drawing[5][((where >= lower) & (where <= upper)).all(-1)] = 1
    return drawing.permute(0, 2, 3, 1).unsqueeze(0)
