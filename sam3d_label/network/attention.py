"""Windowed 3D attention with position terms as additional dimensions of queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FORBIDDEN = -100.0
"""Score between two tokens that share a shifted window without being neighbours, per axis that parts them."""

CHUNK = {"cpu": 1, "cuda": 16}
"""Windows attended to at once when no gradient is needed, by the device: it does not affect the result. It bounds the
memory; on a CPU, one takes the least time, as its scores fit the cache."""

MOST_SCORES = 2**24
"""Scores, 2 bytes each, up to which the score matrix is stored where that is faster."""


class WindowAttention(nn.Module):
    """SAM's attention in cubic windows, cyclically shifted, with decomposed relative positions on three axes.

    The score of a query q at (h, w, d) and a key k at (h', w', d') is
    ``scale * q.k + lr * q.(R_h[h - h'] + R_w[w - w'] + R_d[d - d'])``, less 100 where a cut of the cyclic
    shift parts them. Each query carries its products with its own rows of R and each key the one-hot code
    of its coordinates, so that the plain dot product already contains every term and no score matrix
    need be stored.

    Args:
        width: Channels C.
        heads: Attention heads.
        window: Edge of the cubic window, tokens.
        shift: Cyclic shift, tokens; 0 for none.
        table_length: Rows of the relative-position tables, resampled linearly to 2 * window - 1.
    """

    coordinate_codes: Tensor

    def __init__(self, *, width: int, heads: int, window: int, shift: int, table_length: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.head_width = width // heads
        self.scale = self.head_width**-0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(table_length, self.head_width))
        self.rel_pos_w = nn.Parameter(torch.zeros(table_length, self.head_width))
        self.rel_pos_d = nn.Parameter(torch.zeros(table_length, self.head_width))
        self.lr = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("coordinate_codes", coordinate_codes(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows of tokens (B, H, W, D, C); the shape is kept."""
        if self.shift:
            x = torch.roll(x, (-self.shift,) * 3, dims=(1, 2, 3))
        windows = partition(x, self.window)
        sides = self._side_codes(x).repeat(x.shape[0], 1, 1) if self.shift else None
        tables = self._relative_rows()
        step = windows.shape[0] if torch.is_grad_enabled() else CHUNK.get(x.device.type, 1)
        attended = [
            self._attend(part, tables, None if sides is None else sides[start : start + step])
            for start, part in zip(range(0, windows.shape[0], step), windows.split(step), strict=True)
        ]
        x = unpartition(torch.cat(attended), self.window, x.shape)
        return torch.roll(x, (self.shift,) * 3, dims=(1, 2, 3)) if self.shift else x

    def _attend(self, windows: Tensor, tables: Tensor, sides: Tensor | None) -> Tensor:
        """Attend inside windows (n, window ** 3, C), given the side codes (n, window ** 3, 6) of a shift."""
        n, tokens, _ = windows.shape
        q, k, v = self.qkv(windows).view(n, tokens, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        in_window = q.reshape(n, self.heads, *(self.window,) * 3, self.head_width)
        positions = [
            torch.einsum("bnxyzc,xkc->bnxyzk", in_window, tables[0].to(q.dtype)),
            torch.einsum("bnxyzc,ykc->bnxyzk", in_window, tables[1].to(q.dtype)),
            torch.einsum("bnxyzc,zkc->bnxyzk", in_window, tables[2].to(q.dtype)),
        ]
        queries = [q, *(p.flatten(2, 4) for p in positions)]
        keys = [k, self.coordinate_codes.to(k.dtype).expand(n, self.heads, -1, -1)]
        if sides is not None:
            sides = sides.to(q.dtype).unsqueeze(1).expand(-1, self.heads, -1, -1)
            queries.append((1 - sides) * (FORBIDDEN / self.scale))
            keys.append(sides)
        attended = attention(torch.cat(queries, -1), torch.cat(keys, -1), v, self.scale)
        return self.proj(attended.transpose(1, 2).reshape(n, tokens, -1))

    def _relative_rows(self) -> Tensor:
        """Return rows of the tables for each query and key coordinate, times lr / scale: (3, window, window, c)."""
        tables = torch.stack([self.rel_pos_h, self.rel_pos_w, self.rel_pos_d])
        tables = F.interpolate(tables.transpose(1, 2), size=2 * self.window - 1, mode="linear").transpose(1, 2)
        along = torch.arange(self.window, device=tables.device)
        return tables[:, along[:, None] - along[None, :] + self.window - 1] * (self.lr / self.scale)

    def _side_codes(self, x: Tensor) -> Tensor:
        """Return one-hot side of the cyclic cut on each axis: (windows of one item, window ** 3, 6)."""
        axes = [torch.arange(size, device=x.device) >= size - self.shift for size in x.shape[1:4]]
        past_cut = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
        codes = torch.cat([past_cut, ~past_cut], -1).to(x.dtype)
        return partition(codes.unsqueeze(0), self.window)


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Apply `scaled_dot_product_attention` to keys wider than values, padded to widths for the fast kernels.

    On a CPU in bf16 the fused kernel is slower than plain products (three times in the backward pass), so these are
    used for up to `MOST_SCORES` scores.

    Args:
        q: (..., queries, width).
        k: (..., keys, width).
        v: (..., keys, channels); at most as wide as the keys.
        scale: Factor of the scores.

    Returns:
        (..., queries, channels).
    """
    scores = q.shape[:-1].numel() * k.shape[-2]
    if (q.device.type, q.dtype) == ("cpu", torch.bfloat16) and scores <= MOST_SCORES:
        return (q * scale @ k.transpose(-1, -2)).softmax(-1) @ v
    width = -(-q.shape[-1] // 8) * 8
    q, k = (F.pad(t, (0, width - t.shape[-1])) for t in (q, k))
    return F.scaled_dot_product_attention(q, k, F.pad(v, (0, width - v.shape[-1])), scale=scale)[..., : v.shape[-1]]


def coordinate_codes(window: int) -> Tensor:
    """Return one-hot coordinates of a window's tokens on the three axes: (window ** 3, 3 * window)."""
    axis = torch.arange(window)
    coordinates = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return F.one_hot(coordinates, window).flatten(1).float()


def partition(x: Tensor, window: int) -> Tensor:
    """Split tokens (B, H, W, D, C) into windows (B * n, window ** 3, C)."""
    b, h, w, d, c = x.shape
    x = x.view(b, h // window, window, w // window, window, d // window, window, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, window**3, c)


def unpartition(windows: Tensor, window: int, shape: torch.Size) -> Tensor:
    """Join windows (B * n, window ** 3, C) to tokens of a shape (B, H, W, D, C); the inverse of `partition`."""
    b, h, w, d, c = shape
    x = windows.view(b, h // window, w // window, d // window, window, window, window, c)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(shape)
