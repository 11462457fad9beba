"""The loss of a simulated session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

from sam3d_label.network import Embedding, PromptableNetwork
from sam3d_label.training.settings import TrainSettings
from sam3d_label.training.simulation import SimulatedPrompts, train_rounds


class SessionLoss(nn.Module):
    """The loss of a simulated session on one crop, computed in one process for one item of a step.

    On rehearsed crops, the target of each round is the answer of the network as it was before the run to the same
    prompts (Li and Hoiem, Learning without forgetting, arXiv 1606.09282).

    Args:
        model: The network.
        settings: How to train.
        teacher: The network before the run; None if no crop is rehearsed.

    Attributes:
        bf16: Compute in bf16 autocast.
    """

    def __init__(
        self, model: PromptableNetwork, settings: TrainSettings, teacher: PromptableNetwork | None = None
    ) -> None:
        super().__init__()
        self.model, self.settings, self.bf16 = model, settings, False
        self._teacher = (teacher,)  # in a tuple, since it is no part of what trains
        self.criterion = DiceCELoss(sigmoid=True, lambda_dice=0.5, lambda_ce=0.5)

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        salient: Sequence[bool],
        rngs: Sequence[np.random.Generator],
        rehearsed: Sequence[bool] = (),
    ) -> Tensor:
        """Return losses (B,) of crops, each the mean over the rounds that learn.

        Args:
            images: The crops, (B, 1, D, H, W).
            labels: Their labels, of the same shape.
            salient: For each, as `train_rounds` has it.
            rngs: Random generator of each session.
            rehearsed: For each, whether the teacher's answers are the target; empty for none.
        """
        by_teacher = rehearsed or [False] * len(images)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            embeddings = [self.model.encode(images)] if len(images) == 1 else self.model.encode(images).items()
            pairs = zip(images.split(1), by_teacher, strict=True)
            taught = [self._taught(image) if is_taught else None for image, is_taught in pairs]
            items = zip(embeddings, labels.split(1), salient, rngs, taught, strict=True)
            return torch.stack([self._loss(*item) for item in items])

    def _loss(
        self,
        embedding: Embedding,
        label: Tensor,
        salient: bool,
        rng: np.random.Generator,
        taught: Embedding | None,
    ) -> Tensor:
        prompts, again = (SimulatedPrompts(label.device, two_passes=self.settings.two_passes) for _ in range(2))
        truth = label.clamp(min=0)  # train_rounds sets the logits of ignored voxels
        rounds = train_rounds(self.model, embedding, label, self.settings, rng, salient, prompts)
        losses = []
        for logit in rounds:
            again.follow(prompts)
            losses.append(self.criterion(logit, truth if taught is None else self._answer(again, taught)))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _taught(self, image: Tensor) -> Embedding:
        """Return a crop (1, 1, D, H, W) as the teacher encodes it."""
        (teacher,) = self._teacher
        assert teacher is not None, "rehearsed crops need a teacher"
        return teacher.encode(image)

    @torch.no_grad()
    def _answer(self, prompts: SimulatedPrompts, taught: Embedding) -> Tensor:
        """Return the teacher's probability (1, 1, D, H, W) for prompts."""
        (teacher,) = self._teacher
        assert teacher is not None, "rehearsed crops need a teacher"
        return torch.sigmoid(prompts.decode(teacher, taught))
