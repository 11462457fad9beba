"""Store a trained network as weights with a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import torch

from sam3d_label.network import PromptableNetwork
from sam3d_label.training.dataset import SPACING
from sam3d_label.training.run import TrainReport
from sam3d_label.training.settings import TrainSettings
from sam3d_label.weights.adapter import save_adapter, save_trunk
from sam3d_label.weights.card import Base, Capability, Card, DataSource, Training
from sam3d_label.weights.locations import SHIPPED, TRUNK
from sam3d_label.weights.sam import OFFICIAL
from sam3d_label.weights.tensors import sha256

MULTIPLES = (0.25, 0.5, 1.0, 2.0)
"""Multiples of the card's spacing at which weights of `fine_tune` can be used, limited to the spacings of its crops."""


def learned_capabilities(
    settings: TrainSettings, salient: bool = False, before: Sequence[Capability] = ()
) -> list[Capability]:
    """Return the prompts that a network supports after a run with these settings.

    Sessions of one round have no corrections, but they keep those that the weights supported before.

    Args:
        settings: Of the run.
        salient: Whether its cases had salient targets, which can be found without a prompt.
        before: Capabilities of the weights that it started from.
    """
    shown: dict[Capability, bool] = {
        "positive_click": True,
        "negative_click": settings.clicks > 1 or "negative_click" in before,
        "mask": settings.two_passes and (settings.clicks > 1 or "mask" in before),
        "box": settings.box_share > 0,
        "no_click": salient and settings.no_click_share > 0,
    }
    return [capability for capability, seen in shown.items() if seen]


def is_at_hand(base: Base) -> bool:
    """Return whether the trunk is available everywhere: shipped with the package, or SAM's own."""
    shipped = SHIPPED / base.name / TRUNK
    return base.name in OFFICIAL or (shipped.is_file() and sha256(shipped) == base.sha256)


def trained_card(
    start: Card,
    *,
    report: TrainReport,
    settings: TrainSettings,
    data: Sequence[DataSource],
    version: str,
    metrics: Mapping[str, object] | None = None,
) -> Card:
    """Return the card of what a run made; arguments as of `store`."""
    training = Training.model_validate(
        {
            "data": [*start.training.data, *data],
            "start": start.version,
            "settings": settings.model_dump(mode="json"),
            "cases": report.trained,
            "validation": report.validated,
        }
    )
    changes = {
        "scales": tuple(m for m in MULTIPLES if SPACING[0] <= m * start.spacing <= SPACING[1]) or (1.0,),
        "capabilities": learned_capabilities(settings, report.salient, start.capabilities),
        "training": training,
        "version": version,
        "date": date.today().isoformat(),
        "metrics": metrics or {},
    }
    return Card.model_validate({**start.model_dump(), **changes})


def store(
    model: PromptableNetwork,
    start: Card,
    out: Path,
    *,
    report: TrainReport,
    settings: TrainSettings,
    data: Sequence[DataSource],
    version: str,
    metrics: Mapping[str, object] | None = None,
) -> Card:
    """Write what training changed to `out`: adapter, card, and the trunk where no other file holds it.

    Args:
        model: The trained network.
        start: Card of the weights that training started from.
        out: Folder to write to.
        report: Report of the run.
        settings: Settings of the run.
        data: What it was trained on, and under which licence.
        version: Version of the new weights.
        metrics: What was measured, by name.

    Returns:
        The new card.

    Raises:
        WeightsError: The weights are not finite, or a file cannot be written.
    """
    base = start.base
    if settings.trunk:
        base = base.model_copy(update={"sha256": sha256(save_trunk(model, out / TRUNK))})
    elif not is_at_hand(base):
        base = base.model_copy(update={"sha256": sha256(save_trunk(model, out / TRUNK, dtype=torch.float32))})
    card = trained_card(start, report=report, settings=settings, data=data, version=version, metrics=metrics)
    card = card.model_copy(update={"base": base})
    save_adapter(model, card, out)
    return card
