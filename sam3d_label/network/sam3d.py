"""The whole network: encode a crop once, decode it for every set of prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sam3d_label.network import geodesic
from sam3d_label.network.config import Config
from sam3d_label.network.embedding import Embedding
from sam3d_label.network.fine_path import FinePath
from sam3d_label.network.image_encoder import ImageEncoder
from sam3d_label.network.mask_decoder import MaskDecoder
from sam3d_label.network.prompt_encoder import IN, OUT, DensePrompt, PromptEncoder
from sam3d_label.network.proposals import Proposals
from sam3d_label.network.protocol import PromptableNetwork
from sam3d_label.network.resize import trilinear
from sam3d_label.network.slice_features import SliceFeatures, likeness

TRUNK = (
    "stem.patch_embed.",
    "pos_embed",
    ".attn.qkv.",
    ".attn.proj.",
    ".mlp.",
    ".rel_pos_h",
    ".rel_pos_w",
    ".attn.lr",
)
FIXED = "slice_features.encoder."
"""Prefix of the parameters that are the same file for all networks and are never trained."""

PROMPT_ADDITIONS = ("sign_embed", "corner_embed", "no_prompt_embed", "dense_embed", "fuse_dense", "fine_path")


class SAM3D(PromptableNetwork):
    """3DSAM-adapter (Gong et al., arXiv 2306.13465); only the decoder runs again for each further click.

    Args:
        config: Sizes of the network.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.dense_prompt = DensePrompt(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        self.fine_path = FinePath(config) if config.fine else None
        self.slice_features = SliceFeatures(config) if config.slice_features else None

    def encode(self, crop: Tensor) -> Embedding:
        """Embed a crop (B, 1, D, H, W), float, already normalised; D, H and W equal `config.crop`.

        Raises:
            ValueError: The crop has another shape.
        """
        size = self.config.crop
        if crop.ndim != 5 or crop.shape[1:] != (1, size, size, size):
            raise ValueError(f"a crop has shape (B, 1, {size}, {size}, {size}), not {tuple(crop.shape)}")
        crop = crop.permute(0, 1, 3, 4, 2)
        maps = self.image_encoder(crop)
        levels = self.fine_path.descend(crop) if self.fine_path else ()
        keys = None
        if self.slice_features is not None:
            added, deepest, keys = self.slice_features(crop)
            levels = (levels[0], *(level + more for level, more in zip(levels[1:], added, strict=True)))
            maps = [*maps[:3], maps[3] + deepest]
        return Embedding(maps[3], self.mask_decoder.fixed_share(maps, crop), levels, self._scene(crop), keys)

    def _scene(self, crop: Tensor) -> Tensor | None:
        if not self.config.geodesic:
            return None
        with torch.no_grad(), torch.autocast(crop.device.type, enabled=False):
            return geodesic.scene(crop)

    @torch.no_grad()
    def geodesic_maps(self, embedding: Embedding, points: Tensor) -> tuple[Tensor, ...]:
        """Return an independent geodesic map for each click; empty if the network takes no such maps.

        Args:
            embedding: Result of `encode`.
            points: (B, N, 3) voxels d, h, w of the crop.

        Returns:
            For each click (B, costs, half, half, half).
        """
        if embedding.scene is None:
            return ()
        with torch.autocast(points.device.type, enabled=False):
            return geodesic.distances(embedding.scene, points).unbind(1)

    def decode(
        self,
        embedding: Embedding,
        points: Tensor,
        signs: Tensor,
        *,
        boxes: Tensor | None = None,
        mask: Tensor | None = None,
        geodesic_maps: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Return the logit of a crop for prompts; see `PromptableNetwork.decode`."""
        classes, prompted, dense = self._decode(embedding, points, signs, boxes, mask, geodesic_maps)
        logit = enlarge(classes[:, 1:] - classes[:, :1], self.config.crop)
        if self.fine_path is None:
            return logit
        return logit + in_crop_axes(self.fine_path(prompted, embedding.levels, dense))

    def propose(
        self,
        embedding: Embedding,
        points: Tensor,
        signs: Tensor,
        *,
        boxes: Tensor | None = None,
        mask: Tensor | None = None,
        geodesic_maps: Sequence[Tensor] | None = None,
    ) -> Proposals:
        """Return the result of `decode` and candidates: see `PromptableNetwork.propose`."""
        if self.fine_path is None or self.fine_path.candidates is None:
            return super().propose(embedding, points, signs)
        classes, prompted, dense = self._decode(embedding, points, signs, boxes, mask, geodesic_maps)
        base = enlarge(classes[:, 1:] - classes[:, :1], self.config.crop)
        fine = self.fine_path.ascend(prompted, embedding.levels, dense)
        candidates = base + in_crop_axes(self.fine_path.candidates(fine))
        dice = self.fine_path.candidates.dice(fine, prompted, candidates)
        return Proposals(base + in_crop_axes(self.fine_path.finish(fine)), candidates, dice)

    def class_logits(self, embedding: Embedding, points: Tensor, signs: Tensor) -> Tensor:
        """Return background and foreground logits (B, 2, half, half, half), axes H, W, D, as in the paper.

        Arguments as in `decode`; the fine path is not included.
        """
        return self._decode(embedding, points, signs, None, None, None)[0]

    def _decode(
        self,
        embedding: Embedding,
        points: Tensor,
        signs: Tensor,
        boxes: Tensor | None,
        mask: Tensor | None,
        geodesic_maps: Sequence[Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return class logits, the prompted feature map and the dense prompt."""
        precision = torch.promote_types(embedding.feature.dtype, torch.float32)
        points, signs = points.to(precision), signs.long()
        boxes = points.new_empty(len(points), 0, 2, 3) if boxes is None else boxes.to(precision)
        dense = self.dense_prompt(points, signs, boxes, mask)
        if self.config.geodesic:
            dense = torch.cat([dense, self._geodesic(embedding, points, signs, geodesic_maps)], 1)
        if embedding.keys is not None:
            dense = torch.cat([dense, likeness(embedding.keys, points, signs, self.config.half)], 1)
        dense = channels_innermost(dense.to(embedding.feature.dtype))
        prompted = self.prompt_encoder(embedding.feature, points, signs, boxes, dense)
        return self.mask_decoder(prompted, embedding.fixed_share, dense), prompted, dense

    @torch.no_grad()
    def _geodesic(
        self, embedding: Embedding, points: Tensor, signs: Tensor, geodesic_maps: Sequence[Tensor] | None
    ) -> Tensor:
        """Return the channels of the clicks' maps; all 0 without a click."""
        if not points.shape[1]:
            return points.new_zeros(len(points), self.config.geodesic_channels, *(self.config.half,) * 3)
        maps = self.geodesic_maps(embedding, points) if geodesic_maps is None else geodesic_maps
        with torch.autocast(points.device.type, enabled=False):
            return geodesic.channels(maps, signs == IN, signs == OUT, self.config.geodesic or ())

    def forward(self, crop: Tensor, points: Tensor, signs: Tensor) -> Tensor:
        """Encode and decode in one: arguments and result as in `encode` and `decode`."""
        return self.decode(self.encode(crop), points, signs)

    def encoder(self) -> ImageEncoder:
        """Return the image encoder."""
        return self.image_encoder

    def checkpoint_activations(self, wanted: bool) -> None:
        """Set whether the encoder's activations are computed again in the backward pass."""
        self.image_encoder.activation_checkpointing = wanted


def enlarge(logits: Tensor, size: int) -> Tensor:
    """Resize logits (B, n, half, half, half), axes H, W, D, to the crop: (B, n, size, size, size), axes D, H, W."""
    with torch.autocast(logits.device.type, enabled=False):
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return in_crop_axes(trilinear(precise, size, align_corners=True))


def channels_innermost(values: Tensor) -> Tensor:
    """Return values (B, C, x, y, z) in the memory format in which a CPU convolves many channels in half of the time."""
    return values.contiguous(memory_format=torch.channels_last_3d) if values.device.type == "cpu" else values


def in_crop_axes(values: Tensor) -> Tensor:
    """Return the values (B, n, H, W, D) with the axes of the crop, (B, n, D, H, W)."""
    return values.permute(0, 1, 4, 2, 3)


def is_trunk(name: str) -> bool:
    """Return whether a parameter of `SAM3D` belongs to SAM's own frozen encoder."""
    return name.startswith("image_encoder.") and any(part in name for part in TRUNK)


def is_fixed(name: str) -> bool:
    """Return whether a parameter of `SAM3D` belongs to the encoder of slices, which is never trained."""
    return name.startswith(FIXED)


def is_prompt_addition(name: str) -> bool:
    """Return whether a parameter of `SAM3D` belongs to a kind of prompt that the paper does not have."""
    return any(part in name for part in PROMPT_ADDITIONS)
