"""The interface of a network for segmentation and training; other networks than `SAM3D` can implement it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from sam3d_label.network.config import Config
from sam3d_label.network.embedding import Embedding
from sam3d_label.network.proposals import Proposals


class PromptableNetwork(nn.Module, ABC):
    """A network that encodes a crop once and decodes it for every set of prompts.

    Attributes:
        config: Sizes of the network.
    """

    config: Config

    @abstractmethod
    def encode(self, crop: Tensor) -> Embedding:
        """Embed a crop (B, 1, D, H, W), float, already normalised; D, H and W equal `config.crop`."""

    @abstractmethod
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
        """Return the foreground minus background logit (B, 1, D, H, W) of a crop under prompts.

        Args:
            embedding: Result of `encode`.
            points: (B, N, 3) voxels d, h, w of the crop; N may be 0.
            signs: (B, N): 1 in, 0 out, -1 not a click (padding of a batch).
            boxes: (B, M, 2, 3) lower and upper corner, voxels d, h, w, NaN for none.
            mask: The logit of an earlier pass, (B, 1, D, H, W), or (B, 1, half, half, half) on the decoder's
                grid.
            geodesic_maps: The maps of these points by the method `geodesic_maps`; None to compute them.
        """

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
        """Return the result of `decode` and other masks that the prompts may mean; arguments as in `decode`.

        Raises:
            ValueError: The network has no candidates (`config.candidates` is 0).
        """
        raise ValueError("this network gives one mask: its configuration has no candidates")

    def geodesic_maps(self, embedding: Embedding, points: Tensor) -> tuple[Tensor, ...]:
        """Return a geodesic map for each click of `points` (B, N, 3), voxels d, h, w; empty without such maps."""
        return ()

    def encoder(self) -> nn.Module | None:
        """Return the part that training may leave unchanged; None if there is none."""
        return None

    def checkpoint_activations(self, wanted: bool) -> None:
        """Set whether activations are computed again in the backward pass, which saves memory and takes time."""
