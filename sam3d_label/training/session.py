"""The loss of a simulated session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

from sam3d_label.network import Embedding, PromptableNetwork
from sam3d_label.training.settings import TrainSettings
from sam3d_label.training.simulation import train_rounds


class SessionLoss(nn.Module):
    """The loss of a simulated session on one crop, computed in one process for one item of a step.

    Args:
        model: The network.
        settings: How to train.

    Attributes:
        bf16: Compute in bf16 autocast.
    """

    def __init__(self, model: PromptableNetwork, settings: TrainSettings) -> None:
        super().__init__()
        self.model, self.settings, self.bf16 = model, settings, False
        self.criterion = DiceCELoss(sigmoid=True, lambda_dice=0.5, lambda_ce=0.5)

    def forward(
        self, images: Tensor, labels: Tensor, salient: Sequence[bool], rngs: Sequence[np.random.Generator]
    ) -> Tensor:
        """Return losses (B,) of crops, each the mean over the rounds that learn.

        Args:
            images: The crops, (B, 1, D, H, W).
            labels: Their labels, of the same shape.
            salient: For each, as `train_rounds` has it.
            rngs: Random generator of each session.
        """
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            embeddings = [self.model.encode(images)] if len(images) == 1 else self.model.encode(images).items()
            items = zip(embeddings, labels.split(1), salient, rngs, strict=True)
            return torch.stack([self._loss(*item) for item in items])

    def _loss(self, embedding: Embedding, label: Tensor, salient: bool, rng: np.random.Generator) -> Tensor:
        rounds = train_rounds(self.model, embedding, label, self.settings, rng, salient)
        truth = label.clamp(min=0)  # train_rounds has set the logits of ignored voxels
        return torch.stack([self.criterion(logit, truth) for logit in rounds]).mean()
