"""The loss of a simulated session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_label.network import Embedding, PromptableNetwork, Proposals
from sam3d_label.training.settings import TrainSettings
from sam3d_label.training.simulation import SimulatedPrompts, set_ignored, train_rounds

CANDIDATES_SHARE, DICE_SHARE = 0.5, 0.2
"""Weights of the loss of the best candidate and of the error of the predicted Dice, as in recipes/tiny_geodesic."""


class SessionLoss(nn.Module):
    """The loss of a simulated session on one crop, computed in one process for one item of a step.

    A network that proposes candidates learns them, and the Dice that it predicts for them, from the initial prompts.

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
        how = {"two_passes": self.settings.two_passes, "proposes": self.model.config.candidates > 0}
        prompts, again = (SimulatedPrompts(label.device, **how) for _ in range(2))
        truth = label.clamp(min=0)  # train_rounds sets the logits of ignored voxels
        rounds = train_rounds(self.model, embedding, label, self.settings, rng, salient, prompts)
        losses: list[Tensor] = []
        for logit in rounds:
            again.follow(prompts)
            loss = self.criterion(logit, truth if taught is None else self._answer(again, taught))
            if prompts.proposed is not None:
                loss = loss + self._loss_of_candidates(prompts.proposed, label, again.proposed)
            losses.append(loss)
        return torch.stack(losses).mean()

    def _loss_of_candidates(self, proposed: Proposals, label: Tensor, expected: Proposals | None) -> Tensor:
        """Return the loss of the best candidate, and of each one's predicted Dice; the teacher's are both targets."""
        if expected is not None:
            missed = self.criterion(proposed.candidates.float(), expected.candidates.float().sigmoid())
            return CANDIDATES_SHARE * missed + DICE_SHARE * F.mse_loss(proposed.dice, expected.dice)
        logits = [set_ignored(logit, label < 0) for logit in proposed.candidates.float().split(1, 1)]
        truth = label.clamp(min=0)
        best = torch.stack([self.criterion(logit, truth) for logit in logits]).amin()
        dices = torch.stack([soft_dice(logit.detach().sigmoid(), truth) for logit in logits])
        return CANDIDATES_SHARE * best + DICE_SHARE * F.mse_loss(proposed.dice[0], dices)

    def _teacher_network(self) -> PromptableNetwork:
        (teacher,) = self._teacher
        assert teacher is not None, "rehearsed crops need a teacher"
        return teacher

    @torch.no_grad()
    def _taught(self, image: Tensor) -> Embedding:
        """Return a crop (1, 1, D, H, W) as the teacher encodes it."""
        return self._teacher_network().encode(image)

    @torch.no_grad()
    def _answer(self, prompts: SimulatedPrompts, taught: Embedding) -> Tensor:
        """Return the teacher's probability (1, 1, D, H, W) for prompts."""
        return torch.sigmoid(prompts.decode(self._teacher_network(), taught))


def soft_dice(probability: Tensor, truth: Tensor) -> Tensor:
    """Return the Dice of a probability map and a mask of the same shape, ()."""
    return 2 * (probability * truth).sum() / (probability.sum() + truth.sum()).clamp(min=1)
