"""An annotator in the training loop: clicks from the current error, boxes, the last mask fed back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_label.evaluation.annotators import error_centre, jittered, random_foreground
from sam3d_label.network import SAM3D, Embedding
from sam3d_label.prompts import Click
from sam3d_label.training.settings import TrainSettings

HALF_GRID = (1.0, 1.0, 1.0)
"""Spacing that the annotators are told: they work on the isotropic grid of the decoder."""

MOST_AT_ONCE = 8
"""Clicks that a session may begin with."""


def half_truth(label: Tensor, half: int) -> Tensor:
    """A label (B, 1, D, H, W) on the decoder's grid, (B, 1, half, half, half), 0 or 1.

    The corners of the two grids coincide, as in the decoder's own last enlargement.
    """
    return (F.interpolate(label, size=(half,) * 3, mode="trilinear", align_corners=True) >= 0.5).float()


def half_logit(model: SAM3D, embedding: Embedding, prompts: SimulatedPrompts, mask: Tensor | None) -> Tensor:
    """The mask logit under prompts on the decoder's grid, (1, 1, half, half, half), axes D, H, W."""
    points, signs, boxes = prompts.tensors()
    logits = model.class_logits(embedding, points, signs, boxes=boxes, mask=mask)
    return (logits[:, 1:] - logits[:, :1]).permute(0, 1, 4, 2, 3).float()


class SimulatedPrompts:
    """The prompts of one simulated session, on the decoder's grid.

    Args:
        model: The network that they are for.
        device: Where its tensors live.
    """

    def __init__(self, model: SAM3D, device: torch.device) -> None:
        self.scale = (model.config.crop - 1) / (model.config.half - 1)
        self.device = device
        self.clicks: list[Click] = []
        self.boxes: list[tuple[np.ndarray, np.ndarray]] = []

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Points (1, N, 3) and signs (1, N) and boxes (1, M, 2, 3), in voxels of the crop."""
        points = torch.tensor([click.ijk for click in self.clicks], dtype=torch.float32).reshape(1, -1, 3)
        signs = torch.tensor([[int(click.positive) for click in self.clicks]], dtype=torch.long).reshape(1, -1)
        boxes = torch.tensor(np.array(self.boxes), dtype=torch.float32).reshape(1, -1, 2, 3)
        return (
            (points * self.scale).to(self.device),
            signs.to(self.device),
            (boxes * self.scale).to(self.device),
        )


def train_rounds(
    model: SAM3D, embedding: Embedding, truth: Tensor, settings: TrainSettings, rng: np.random.Generator
) -> Iterator[Tensor]:
    """The logits (1, 1, half, half, half) of each round of a simulated session, with gradients.

    Args:
        model: The network.
        embedding: A crop, encoded, of one item.
        truth: What `half_truth` gave for its label.
        settings: Rounds and shares of the kinds of prompts.
        rng: The session's chance.
    """
    target = truth[0, 0].bool().cpu().numpy()
    prompts = SimulatedPrompts(model, truth.device)
    if rng.random() < settings.box_share:
        prompts.boxes.append(loose_box(target, rng))
    else:
        prompts.clicks.extend(first_clicks(target, settings, rng))
    previous: Tensor | None = None
    for _ in range(rng.integers(1, 2 * settings.clicks)):
        logit = half_logit(model, embedding, prompts, previous if rng.random() < settings.mask_share else None)
        yield logit
        previous = logit.detach()
        found = (previous[0, 0] > 0).cpu().numpy()
        if np.array_equal(found, target):
            return
        prompts.clicks.append(draw_click(target, found, prompts.clicks, rng))


@torch.no_grad()
def validation_dice(model: SAM3D, embedding: Embedding, truth: Tensor, clicks: int) -> list[float]:
    """Dice after 1, 2, … clicks of the annotator `error_centre`, on the decoder's grid; arguments as `train_rounds`."""
    target = truth[0, 0].bool().cpu().numpy()
    found = np.zeros_like(target)
    prompts = SimulatedPrompts(model, truth.device)
    scores = []
    for _ in range(clicks):
        click = error_centre(target, found, prompts.clicks, np.random.default_rng(0), HALF_GRID)
        if click is not None:
            prompts.clicks.append(click)
            found = (half_logit(model, embedding, prompts, None)[0, 0] > 0).cpu().numpy()
        scores.append(2 * float((found & target).sum()) / max(1.0, float(found.sum() + target.sum())))
    return scores


def first_clicks(target: np.ndarray, settings: TrainSettings, rng: np.random.Generator) -> list[Click]:
    """One click on the target (D, H, W), now and then several at once."""
    nothing = np.zeros_like(target)
    clicks = [draw_click(target, nothing, (), rng)]
    if rng.random() < settings.several_share:
        for _ in range(rng.integers(1, MOST_AT_ONCE)):
            another = random_foreground(target, nothing, clicks, rng, HALF_GRID)
            clicks.extend([another] if another else [])
    return clicks


def draw_click(target: np.ndarray, found: np.ndarray, clicks: Sequence[Click], rng: np.random.Generator) -> Click:
    """One click on the larger error of `found` against `target`: its centre, near it, or anywhere in it."""
    rule = rng.random()
    if rule < 0.5:
        click = error_centre(target, found, clicks, rng, HALF_GRID)
    elif rule < 0.65 and clicks:
        click = jittered(target, found, clicks, rng, HALF_GRID)
        click = click and Click(click.ijk, bool(target[click.ijk]))
    else:
        missed, added = target & ~found, found & ~target
        positive = missed.sum() >= added.sum()
        click = random_foreground(missed if positive else added, found, clicks, rng, HALF_GRID)
        click = click and Click(click.ijk, bool(positive))
    if click is None:
        click = random_foreground(target, found, clicks, rng, HALF_GRID)
    assert click is not None, "a training crop always holds some of its target"
    return click


def loose_box(target: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner of a box around a target (D, H, W), each face off by up to a tenth of its edge."""
    where = np.argwhere(target)
    lower, upper = where.min(0), where.max(0)
    slack = 0.1 * (upper - lower + 1)
    lower = lower + rng.uniform(-slack, slack * 0.5)
    upper = upper + rng.uniform(-slack * 0.5, slack)
    return np.clip(lower, 0, np.array(target.shape) - 1), np.clip(upper, 0, np.array(target.shape) - 1)
