"""Encode crops, and cache the embeddings for the next request on the same volume."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor

from sam3d_label.cache import LruCache
from sam3d_label.image.frame import CropFrame
from sam3d_label.image.intensity import Normalization
from sam3d_label.image.volume import Volume
from sam3d_label.network import Embedding, Proposals
from sam3d_label.segmentation.crop_prompts import CropPrompts, decode
from sam3d_label.segmentation.precision import mask_precision
from sam3d_label.segmentation.prompts import Click, Prompts
from sam3d_label.segmentation.target_size import size_by_appearance
from sam3d_label.segmentation.two_pass import initial_clicks
from sam3d_label.weights import Weights

IMAGE, SIZE, MAPS, LOGIT, DICE = "image", "size", "maps", "logit", "dice"
"""In the keys of a normalized crop, and of the apparent size, maps, logit and predicted Dice of one click in it."""


class CropEncoder:
    """Encodes and decodes the crops of one volume with one set of weights.

    Args:
        volume: The volume.
        weights: The network and its card.
        normalization: The card's intensity rule, fitted to the volume.
        cache: Cache of embeddings and of results of single clicks. Keys hold the volume's voxels and affine, the
            weights, the rule, the crop and the device.

    Attributes:
        device: Where the network computes.
        encoded: Number of crops that had to be encoded so far.
    """

    def __init__(self, volume: Volume, weights: Weights, normalization: Normalization, cache: LruCache) -> None:
        self.volume, self.weights, self.normalization, self.cache = volume, weights, normalization, cache
        self.device = next(weights.model.parameters()).device
        self.accepts_masks = "mask" in weights.card.capabilities
        self.encoded = 0

    def image(self, frame: CropFrame) -> Tensor:
        """Return a crop of the volume, normalized, float32 (D, H, W)."""
        image, _ = self.cache.get(
            (*self._key(frame), IMAGE), lambda: self.volume.crop(frame, self.normalization).to(self.device)
        )
        return image

    def embedding(self, frame: CropFrame) -> Embedding:
        """Return the embedding of a crop."""
        embedding, made = self.cache.get(self._key(frame), lambda: self._encode(frame))
        self.encoded += made
        return embedding

    def _encode(self, frame: CropFrame) -> Embedding:
        image = self.image(frame)[None, None]  # resampled in full precision
        with mask_precision(self.device):
            return self.weights.model.encode(image)

    def moments(self, frame: CropFrame) -> tuple[Tensor, Tensor]:
        """Return mean and mean square of each channel of a crop's deepest feature map, (channels,)."""
        feature = self.embedding(frame).feature[0].float().flatten(1)
        return feature.mean(1), (feature**2).mean(1)

    def apparent_size(self, frame: CropFrame, ijk: tuple[int, int, int]) -> float:
        """Return how large the structure around a stored voxel appears to be in a crop, mm."""
        (at,) = frame.to_dhw([ijk])
        voxels, _ = self.cache.get((*self._key(frame), SIZE, ijk), lambda: size_by_appearance(self.image(frame), at))
        return float(voxels) * frame.spacing

    @property
    def predicts_dice(self) -> bool:
        """Whether the network predicts the Dice of its masks."""
        return bool(self.weights.model.config.candidates)

    def predicted_dice(self, frame: CropFrame, click: Click) -> float:
        """Return the Dice that the network predicts for its first candidate, the mask of one click in a crop.

        The cache then has the result of `logit` for that click, too.
        """
        prompts = CropPrompts.of(Prompts.of([click]), frame, self.device)

        def predict() -> Tensor:
            proposed = self.propose(frame, prompts)
            self.cache.get(self._click_key(frame, prompts), lambda: proposed.logit)
            return proposed.dice[0, 0].cpu()

        return self.cache.get((*self._key(frame), DICE, click), predict)[0].item()

    def initial_logit(self, frame: CropFrame, prompts: CropPrompts) -> Tensor | None:
        """Return the logit (1, 1, D, H, W) of the first of two passes, None when one pass does."""
        clicks = initial_clicks(prompts)
        if clicks is None:
            return None
        return self.logit(frame, prompts.with_clicks(clicks))

    def logit(
        self, frame: CropFrame, prompts: CropPrompts, mask: Tensor | None = None, *, repeated: bool = True
    ) -> Tensor:
        """Return the foreground minus background logit (1, 1, D, H, W) of a crop.

        Args:
            frame: The crop.
            prompts: Its prompts.
            mask: As in `decode`.
            repeated: Whether the next request may have the same prompts, so that the cache keeps what they need.
        """
        if not repeated:
            return self._decode(frame, prompts, mask, None)
        if mask is not None or not prompts.is_single_click:
            return self._decode(frame, prompts, mask, self.geodesic_maps(frame, prompts))
        return self.cache.get(
            self._click_key(frame, prompts),
            lambda: self._decode(frame, prompts, None, self.geodesic_maps(frame, prompts)),
        )[0]

    def _decode(
        self, frame: CropFrame, prompts: CropPrompts, mask: Tensor | None, geodesic_maps: list[Tensor] | None
    ) -> Tensor:
        embedding = self.embedding(frame)
        with mask_precision(self.device):
            return decode(self.weights.model, embedding, prompts, mask, geodesic_maps)

    def propose(self, frame: CropFrame, prompts: CropPrompts, mask: Tensor | None = None) -> Proposals:
        """Return the candidates of the network for a crop; `mask` as in `decode`."""
        embedding, maps = self.embedding(frame), self.geodesic_maps(frame, prompts)
        with mask_precision(self.device):
            return self.weights.model.propose(
                embedding, prompts.points, prompts.signs, boxes=prompts.boxes, mask=mask, geodesic_maps=maps
            )

    def geodesic_maps(self, frame: CropFrame, prompts: CropPrompts) -> list[Tensor] | None:
        """Return the geodesic maps of the clicks, made once for each; None for weights without such maps."""
        if not self.weights.model.config.geodesic:
            return None
        return [self._geodesic_map(frame, point) for point in prompts.points[0]]

    def _geodesic_map(self, frame: CropFrame, point: Tensor) -> Tensor:
        key = (*self._key(frame), MAPS, *point.tolist())
        return self.cache.get(
            key, lambda: self.weights.model.geodesic_maps(self.embedding(frame), point[None, None])[0]
        )[0]

    def _click_key(self, frame: CropFrame, prompts: CropPrompts) -> tuple[Hashable, ...]:
        return (*self._key(frame), LOGIT, *prompts.points[0, 0].tolist(), int(prompts.signs[0, 0]))

    def _key(self, frame: CropFrame) -> tuple[Hashable, ...]:
        return (self.volume.signature, self.weights.signature, self.normalization, frame, self.device)
