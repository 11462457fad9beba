"""The result of the encoder for one crop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Embedding:
    """The encoded crop: the input of the decoder for all its clicks.

    Attributes:
        feature: The deepest map, (B, neck, grid, grid, grid), axes H, W, D.
        fixed_share: The click-independent part of the decoder, (B, decoder, half, half, half), axes H, W, D.
        levels: Feature maps of the fine path's encoder; empty if the network has no fine path.
        scene: Features for geodesic maps (see `geodesic.scene`); None if the network takes no such maps.
        keys: Vectors for the likeness to a click (see `slice_features`); None if the network has no slice features.
    """

    feature: Tensor
    fixed_share: Tensor
    levels: tuple[Tensor, ...] = ()
    scene: Tensor | None = None
    keys: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory held, bytes."""
        optional = [t for t in (self.scene, self.keys) if t is not None]
        return sum(t.numel() * t.element_size() for t in (self.feature, self.fixed_share, *self.levels, *optional))

    def items(self) -> Iterator[Embedding]:
        """Split a batch into batches of one crop."""
        for index in range(len(self.feature)):
            item = slice(index, index + 1)
            scene, keys = (None if t is None else t[item] for t in (self.scene, self.keys))
            levels = tuple(level[item] for level in self.levels)
            yield Embedding(self.feature[item], self.fixed_share[item], levels, scene, keys)
