"""A simulated session for a whole batch at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.tiny_geodesic.annotator import draw, draw_inside, loose_boxes, rough_masks, target_cells, to_cells
from sam3d_label.network import SAM3D, Embedding, Proposals

ROUNDS = 5
"""Rounds of a session, at most; the first and the last learn."""

SEVERAL_SHARE, MOST_AT_ONCE = 0.2, 8
"""How often a session begins with more clicks, and how many those are at most."""

CANDIDATE_SHARE, QUALITY_SHARE = 0.5, 0.2
"""Weights of the best candidate's loss and of the error of the predicted Dice."""

TAKEN_SHARE = 0.3
"""How often further clicks correct the best candidate instead of the answer."""


class BatchSession:
    """Plays sessions.

    Args:
        model: The network.
        rng: Chance, on the host.
    """

    def __init__(self, model: SAM3D, rng: np.random.Generator) -> None:
        self.model, self.rng = model, rng

    def play(self, image: Tensor, label: Tensor, kind: str) -> dict[str, Tensor]:
        """Return the loss of one session and the numbers to log.

        Args:
            image: Crops (B, 1, D, H, W).
            label: Their targets, 0 or 1.
            kind: What it begins with: click, box, rough (a mask) or none.
        """
        embedding = self.model.encode(image)
        prompts = BatchPrompts(self.model, embedding)
        if kind == "none":
            loss, dice = loss_and_dice(prompts.decode(None), label)
            return {"loss": loss.mean(), "dice": dice.mean()}
        target = target_cells(label)
        there = target.flatten(1).any(1).float()
        target = target | (there.view(-1, 1, 1, 1) < 1)
        opening = self.begin(prompts, target, kind)
        last = int(self.rng.integers(0, ROUNDS))
        losses: list[Tensor] = []
        scores: dict[str, Tensor] = {}
        for number in range(last + 1):
            learns = number in (0, last)
            ambiguous = number == 0 and opening is None
            with torch.set_grad_enabled(learns):
                if ambiguous:
                    proposals = prompts.propose()
                    logit, best = proposals.logit.float(), self.candidates(proposals, label, scores)
                else:
                    logit = prompts.decode(opening)
            if learns:
                loss, dice = loss_and_dice(logit, label)
                losses.append(loss + best if ambiguous else loss)
                scores["last" if number else "first"] = mean(dice.detach(), there)
            if ambiguous:
                opening = self.opened(proposals)
            if number < last:
                with torch.no_grad():
                    prompts.add(*draw(target, to_cells(logit.detach())))
        return {"loss": mean(torch.stack(losses).mean(0), there), **scores}

    def begin(self, prompts: BatchPrompts, target: Tensor, kind: str) -> Tensor | None:
        """Draw the first prompts of a session; return the mask that they correct, if any."""
        opening = None
        with torch.no_grad():
            if kind == "box":
                prompts.boxes = loose_boxes(target)
            elif kind == "rough":
                opening = rough_masks(target)
            if kind == "click" or (kind == "rough" and self.rng.random() < 0.5):
                prompts.add(*draw(target, torch.zeros_like(target), first=True))
            if kind == "click" and self.rng.random() < SEVERAL_SHARE:
                opening = prompts.decode(None)
                for _ in range(int(self.rng.integers(1, MOST_AT_ONCE))):
                    prompts.add(*draw_inside(target))
        return opening

    def candidates(self, proposals: Proposals, label: Tensor, scores: dict[str, Tensor]) -> Tensor:
        """Return the loss of the best candidate and of the predicted Dice of each."""
        logits, predicted = proposals.candidates.float(), proposals.dice
        each = [loss_and_dice(logit[:, None], label) for logit in logits.unbind(1)]
        losses, dices = (torch.stack(values, 1) for values in zip(*each, strict=True))
        scores["best"] = dices.detach().amax(1).mean()
        scores["taken"] = dices.detach().gather(1, predicted.detach().argmax(1, keepdim=True)).mean()
        missed = F.mse_loss(predicted, dices.detach(), reduction="none").mean(1)
        return CANDIDATE_SHARE * losses.amin(1) + QUALITY_SHARE * missed

    def opened(self, proposals: Proposals) -> Tensor:
        """Return the logit that further clicks correct."""
        if self.rng.random() >= TAKEN_SHARE:
            return proposals.logit.detach().float()
        best = proposals.dice.detach().argmax(1).view(-1, 1, 1, 1, 1).expand(-1, 1, *proposals.candidates.shape[2:])
        return proposals.candidates.detach().gather(1, best).float()


class BatchPrompts:
    """The prompts of a batch so far; the geodesic maps of a click are made once."""

    def __init__(self, model: SAM3D, embedding: Embedding) -> None:
        self.model, self.embedding = model, embedding
        self.points = torch.zeros(len(embedding.feature), 0, 3, device=embedding.feature.device)
        self.signs = torch.zeros(len(self.points), 0, dtype=torch.long, device=self.points.device)
        self.boxes: Tensor | None = None
        self.reach: list[Tensor] = []

    def add(self, cells: Tensor, signs: Tensor) -> None:
        """Add one click for each item: cells (B, 3) and signs (B,)."""
        point = cells[:, None].float() * 2 + 0.5
        self.points = torch.cat([self.points, point], 1)
        self.signs = torch.cat([self.signs, signs[:, None]], 1)
        self.reach.extend(self.model.geodesic_maps(self.embedding, point))

    def decode(self, opening: Tensor | None) -> Tensor:
        """Return the logit, float32, of the prompts, which correct `opening`."""
        return self.model.decode(
            self.embedding, self.points, self.signs, boxes=self.boxes, mask=opening, geodesic_maps=self.reach
        ).float()

    def propose(self) -> Proposals:
        """Return the logit and the candidates of the prompts."""
        return self.model.propose(self.embedding, self.points, self.signs, boxes=self.boxes, geodesic_maps=self.reach)


def loss_and_dice(logit: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of Dice loss and cross-entropy, and the soft Dice, (B,)."""
    probability = logit.sigmoid()
    both = (probability * label).flatten(1).sum(1)
    total = probability.flatten(1).sum(1) + label.flatten(1).sum(1)
    dice = (2 * both + 1e-5) / (total + 1e-5)
    entropy = F.binary_cross_entropy_with_logits(logit, label, reduction="none").flatten(1).mean(1)
    return 0.5 * (1 - dice) + 0.5 * entropy, dice


def mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of values (B,) under weights (B,)."""
    return (values * weights).sum() / weights.sum().clamp(min=1)
