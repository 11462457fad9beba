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
    """

    feature: Tensor
    fixed_share: Tensor
    levels: tuple[Tensor, ...] = ()
    scene: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory held, bytes."""
        scene = () if self.scene is None else (self.scene,)
        return sum(t.numel() * t.element_size() for t in (self.feature, self.fixed_share, *self.levels, *scene))

    def items(self) -> Iterator[Embedding]:
        """Split a batch into batches of one crop."""
        scenes = [None] * len(self.feature) if self.scene is None else self.scene.split(1)
        parts = zip(*(t.split(1) for t in (self.feature, self.fixed_share, *self.levels)), strict=True)
        for tensors, scene in zip(parts, scenes, strict=True):
            yield Embedding(tensors[0], tensors[1], tensors[2:], scene)
