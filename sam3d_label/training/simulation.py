"""An annotator in the training loop: clicks on the current error, boxes, masks of wider views, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from sam3d_label.evaluation.annotators import error_centre, jittered, random_foreground
from sam3d_label.masks import corners
from sam3d_label.network import Embedding, PromptableNetwork, Proposals
from sam3d_label.segmentation.crop_prompts import CropPrompts, decode
from sam3d_label.segmentation.prompts import Click
from sam3d_label.segmentation.two_pass import initial_clicks
from sam3d_label.training.settings import TrainSettings

CELLS = (1.0, 1.0, 1.0)
"""Spacing given to the annotators: they work on cells of two voxels' edge, as the decoder does."""

CERTAIN = 20.0
"""A logit of almost certain foreground."""

MOST_AT_ONCE = 8
"""Most clicks at the start of a session."""


ROUGHEST = 0.12
"""Largest standard deviation of a rough mask's border from the truth, as a share of the target's longest edge."""


def cells(values: Tensor) -> np.ndarray:
    """Return which cells (D, H, W) of half the resolution are mostly positive in values (1, 1, 2D, 2H, 2W)."""
    return (F.avg_pool3d(values.float(), 2)[0, 0] > 0).cpu().numpy()


def target_cells(truth: Tensor) -> np.ndarray:
    """Return the target's cells, bool (D, H, W); the cells that it touches where it is too thin to fill half of any."""
    filled = cells(truth - 0.5)
    return filled if filled.any() else cells(truth)


class SimulatedPrompts:
    """The prompts of one simulated session, in cells.

    Args:
        device: Device of their tensors.
        two_passes: Whether they correct the mask of the initial one.
        proposes: Whether candidates are decoded with the initial one.

    Attributes:
        rough: The logit that they correct; None for the logit of the first of them only.
        proposed: The candidates that were decoded with the last logit; None if none were.
    """

    def __init__(self, device: torch.device, *, two_passes: bool = True, proposes: bool = False) -> None:
        self.device, self.two_passes, self.proposes = device, two_passes, proposes
        self.rough: Tensor | None = None
        self.proposed: Proposals | None = None
        self.clicks: list[Click] = []
        self.boxes: list[tuple[np.ndarray, np.ndarray]] = []
        self._initial_logits: dict[tuple[float, ...], Tensor] = {}
        self._geodesic_maps: list[Tensor] = []

    def begin(self, target: np.ndarray, settings: TrainSettings, rng: np.random.Generator) -> None:
        """Draw the first prompts of a session: a box or clicks on the target (D, H, W)."""
        if rng.random() < settings.box_share:
            self.boxes.append(loose_box(target, rng))
        else:
            self.clicks.extend(first_clicks(target, settings, rng))

    def in_crop(self) -> CropPrompts:
        """Return the prompts in voxels of the crop."""
        points = torch.tensor([click.ijk for click in self.clicks], dtype=torch.float32).reshape(1, -1, 3)
        signs = torch.tensor([[int(click.positive) for click in self.clicks]], dtype=torch.long).reshape(1, -1)
        boxes = torch.tensor(np.array(self.boxes), dtype=torch.float32).reshape(1, -1, 2, 3)
        return CropPrompts((2 * points + 0.5).to(self.device), signs.to(self.device), (2 * boxes + 0.5).to(self.device))

    def follow(self, other: SimulatedPrompts) -> None:
        """Take over the prompts of another session on the same crop, for another network."""
        self.rough, self.clicks, self.boxes = other.rough, list(other.clicks), list(other.boxes)
        self._geodesic_maps = list(other._geodesic_maps)  # they do not depend on the network

    def decode(self, model: PromptableNetwork, embedding: Embedding) -> Tensor:
        """Return the logit (1, 1, D, H, W), float32, of a crop for the prompts.

        Args:
            model: The network, the same each time.
            embedding: The crop, encoded.
        """
        prompts, maps = self.in_crop(), self._geodesic_maps
        maps.extend(model.geodesic_maps(embedding, prompts.points[:, len(maps) :]))
        clicks, self.proposed = initial_clicks(prompts), None
        if self.rough is None and clicks is None:
            logit = self._decode_initial(model, embedding, prompts)
            self._initial_logits[_key(prompts)] = logit.detach()
            return logit
        if self.rough is not None or not self.two_passes:
            return decode(model, embedding, prompts, self.rough, maps or None).float()
        assert clicks is not None, "one pass decodes an initial prompt"
        base = self._initial_logit(model, embedding, prompts.with_clicks(clicks), maps[clicks])
        return decode(model, embedding, prompts, base, maps or None).float()

    def _decode_initial(self, model: PromptableNetwork, embedding: Embedding, prompts: CropPrompts) -> Tensor:
        """Return the logit for prompts that one pass decodes, and set `proposed`."""
        maps = self._geodesic_maps or None
        if not self.proposes or not (self.clicks or self.boxes):
            return decode(model, embedding, prompts, geodesic_maps=maps).float()
        self.proposed = model.propose(embedding, prompts.points, prompts.signs, boxes=prompts.boxes, geodesic_maps=maps)
        return self.proposed.logit.float()

    @torch.no_grad()
    def _initial_logit(
        self, model: PromptableNetwork, embedding: Embedding, first: CropPrompts, maps: list[Tensor]
    ) -> Tensor:
        """Return the logit of the first of two passes, computed once for its prompts, if no round has done so."""
        key = _key(first)
        if key not in self._initial_logits:
            self._initial_logits[key] = decode(model, embedding, first, geodesic_maps=maps or None).float()
        return self._initial_logits[key]


def _key(prompts: CropPrompts) -> tuple[float, ...]:
    """Return the clicks as a key among the prompts of one session, whose boxes are always the same."""
    return (*prompts.points.flatten().tolist(), *prompts.signs.flatten().tolist())


def train_rounds(
    model: PromptableNetwork,
    embedding: Embedding,
    truth: Tensor,
    settings: TrainSettings,
    rng: np.random.Generator,
    salient: bool = False,
    prompts: SimulatedPrompts | None = None,
) -> Iterator[Tensor]:
    """Yield the logits (1, 1, D, H, W) of the first and the last round of a simulated session, with gradients.

    The rounds between them are played without.

    Args:
        model: The network.
        embedding: A crop, encoded, of one item.
        truth: Its label, (1, 1, D, H, W): 1 in the target, 0 in the background, -1 where voxels are ignored: there, the
            logits are those of a perfect answer. Where it has no target, the one round has no prompts.
        settings: Rounds and shares of the kinds of prompts.
        rng: Random generator of the session.
        salient: Whether the target is salient, so that it can be found without a prompt.
        prompts: Gets the prompts of the session; while a logit is yielded, it holds those that led to it.
    """
    prompts = prompts or SimulatedPrompts(truth.device, two_passes=settings.two_passes)
    ignored, truth = truth < 0, truth.clamp(min=0)
    if not truth.any():
        yield set_ignored(prompts.decode(model, embedding), ignored)
        return
    target = target_cells(truth)
    prompts.rough = rough_mask(truth, rng) if rng.random() < settings.rough_mask_share else None
    without_prompt = rng.random() < (settings.no_click_share if prompts.rough is None else 0.5)
    if not without_prompt or (prompts.rough is None and not salient):
        prompts.begin(target, settings, rng)
    last = int(rng.integers(0, 2 * settings.clicks - 1))
    for number in range(last + 1):
        learns = number in (0, last)
        with torch.set_grad_enabled(learns):
            logit = set_ignored(prompts.decode(model, embedding), ignored)
        if learns:
            yield logit
        found = cells(logit.detach())
        if np.array_equal(found, target):
            return
        prompts.clicks.append(draw_click(target, found, prompts.clicks, rng))


def set_ignored(logit: Tensor, ignored: Tensor) -> Tensor:
    """Set ignored voxels to certain background, so that they cause no error and no gradient."""
    return torch.where(ignored, -CERTAIN, logit) if ignored.any() else logit


def rough_mask(truth: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a mask logit (1, 1, D, H, W) like that of a wider view: soft, and with an inaccurate border."""
    target = target_cells(truth)
    inwards = ndimage.distance_transform_edt(target) - ndimage.distance_transform_edt(~target)
    lower, upper = _corners(target)
    reach = rng.uniform(0, ROUGHEST) * max(upper - lower + 1)
    nodes = rng.standard_normal((1, 1, *(int(rng.integers(4, 12)),) * 3))
    offset = F.interpolate(torch.from_numpy(nodes), size=target.shape, mode="trilinear")
    logit = (torch.from_numpy(inwards) + reach * offset) / rng.uniform(0.5, 2)
    return F.interpolate(logit.float(), size=truth.shape[2:], mode="trilinear").to(truth.device)


@torch.no_grad()
def validation_dice(
    model: PromptableNetwork, embedding: Embedding, truth: Tensor, settings: TrainSettings, clicks: int
) -> list[float]:
    """Return Dice after 1, 2, … clicks of the annotator `error_centre`; arguments as `train_rounds`."""
    ignored, truth = truth < 0, truth.clamp(min=0)
    target = target_cells(truth)
    found = np.zeros_like(target)
    prompts = SimulatedPrompts(truth.device, two_passes=settings.two_passes)
    scores = [0.0]
    for _ in range(clicks):
        click = error_centre(target, found, prompts.clicks, np.random.default_rng(0), CELLS)
        if click is None:
            scores.append(scores[-1])
            continue
        prompts.clicks.append(click)
        logit = set_ignored(prompts.decode(model, embedding), ignored)
        found, mask = cells(logit), logit > 0
        # `masks.dice` takes arrays; these tensors stay on their device.
        scores.append(2 * float(mask[truth > 0].sum()) / max(1.0, float(mask.sum() + truth.sum())))
    return scores[1:]


def first_clicks(target: np.ndarray, settings: TrainSettings, rng: np.random.Generator) -> list[Click]:
    """Return one click on the target (D, H, W), sometimes several at once."""
    nothing = np.zeros_like(target)
    clicks = [draw_click(target, nothing, (), rng)]
    if rng.random() < settings.several_share:
        for _ in range(rng.integers(1, MOST_AT_ONCE)):
            another = random_foreground(target, nothing, clicks, rng, CELLS)
            clicks.extend([another] if another else [])
    return clicks


def draw_click(target: np.ndarray, found: np.ndarray, clicks: Sequence[Click], rng: np.random.Generator) -> Click:
    """Return one click on the larger error of `found` against `target`: its centre, near it, or anywhere in it."""
    rule = rng.random()
    if rule < 0.5:
        click = error_centre(target, found, clicks, rng, CELLS)
    elif rule < 0.65 and clicks:
        click = jittered(target, found, clicks, rng, CELLS)
        click = click and Click(click.ijk, bool(target[click.ijk]))
    else:
        missed, added = target & ~found, found & ~target
        positive = missed.sum() >= added.sum()
        click = random_foreground(missed if positive else added, found, clicks, rng, CELLS)
        click = click and Click(click.ijk, bool(positive))
    if click is None:
        click = random_foreground(target, found, clicks, rng, CELLS)
    assert click is not None, "a training crop always holds some of its target"
    return click


def loose_box(target: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner of a box around a target (D, H, W), each face off by up to a tenth of its edge."""
    lower, upper = _corners(target)
    slack = 0.1 * (upper - lower + 1)
    lower = lower + rng.uniform(-slack, slack * 0.5)
    upper = upper + rng.uniform(-slack * 0.5, slack)
    return np.clip(lower, 0, np.array(target.shape) - 1), np.clip(upper, 0, np.array(target.shape) - 1)


def _corners(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = corners(target)
    assert found is not None, "a training crop always holds some of its target"
    return found
