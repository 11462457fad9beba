"""Networks and segmenters that need no trained weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sam3d_label.image.intensity import Window
from sam3d_label.image.volume import Volume
from sam3d_label.network import SAM3D, Config, Embedding, PromptableNetwork
from sam3d_label.segmentation.segmenter import Segmenter
from sam3d_label.weights import Weights

SMALL = Config(
    crop=32,
    patch=8,
    upsample=2,
    width=24,
    depth=4,
    heads=2,
    window=4,
    sam_grid=8,
    sam_window=4,
    global_blocks=(),
    neck=16,
    prompt_heads=2,
    prompt_mlp=16,
    decoder=4,
)


def random_network() -> SAM3D:
    """A small network with random values everywhere, the same each time."""
    torch.manual_seed(0)
    model = SAM3D(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


class Ball(PromptableNetwork):
    """Stands for a network that has learned one thing: bright voxels are target."""

    def __init__(self, network: PromptableNetwork) -> None:
        super().__init__()
        self.config = network.config
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, crop: Tensor) -> Embedding:
        return Embedding(crop, torch.zeros(1))

    def decode(self, embedding: Embedding, points: Tensor, signs: Tensor, **_: object) -> Tensor:
        return 2 * embedding.feature


class Constant(Ball):
    """A network that answers with one logit everywhere."""

    def __init__(self, network: PromptableNetwork, logit: float) -> None:
        super().__init__(network)
        self.logit = logit

    def decode(self, embedding: Embedding, points: Tensor, signs: Tensor, **_: object) -> Tensor:
        return torch.full_like(embedding.feature, self.logit)


def bright(small_weights: Weights, array: np.ndarray, capabilities: list[str]) -> Segmenter:
    """A segmenter of a volume of bright targets, 200, on 50, that finds all that is bright."""
    card = small_weights.card.model_copy(
        update={"intensity": Window(lower=50, upper=200, mean=125, std=75), "capabilities": capabilities}
    )
    return Segmenter(Volume(array, np.eye(4)), replace(small_weights, model=Ball(small_weights.model), card=card))
