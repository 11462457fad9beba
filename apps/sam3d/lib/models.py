"""From the app's configuration to weights that may be offered for clicks."""

from __future__ import annotations

import dataclasses

from lib.config import AppConfig
from sam3d_label.errors import WeightsError
from sam3d_label.weights import Weights, open_weights

CLICK = "positive_click"
SHIPPED_PRESET = "tiny"


class UntrainedError(WeightsError):
    """The configured network has not learned clicks, so that its masks would mean nothing."""


def load_weights(config: AppConfig, device: str = "cpu") -> Weights:
    """Loads the weights that the configuration names.

    Args:
        config: The app's configuration.
        device: Name of a torch device.

    Returns:
        Weights that have learned clicks.

    Raises:
        UntrainedError: They have not; the message says what is missing and how to get it.
        WeightsError: They are missing, damaged, or of another preset than the configuration asks for.
    """
    if config.weights is None and config.preset not in (None, SHIPPED_PRESET):
        raise UntrainedError(_how_to_train(f"preset {config.preset} has no shipped weights"))
    weights = open_weights(config.weights, device, sam_checkpoint=config.sam_checkpoint)
    if config.preset not in (None, weights.card.preset):
        raise WeightsError(
            f"--conf preset {config.preset}: weights {config.weights} are of preset {weights.card.preset};"
            " leave preset out, or give other weights"
        )
    if CLICK not in weights.card.capabilities:
        raise UntrainedError(_how_to_train(f"weights {config.weights} were never trained on clicks"))
    return _with_overrides(weights, config)


def _with_overrides(weights: Weights, config: AppConfig) -> Weights:
    """The weights with the configured spacing and intensity rule, and a signature of their own."""
    wanted = {"spacing": config.spacing, "intensity": config.intensity}
    changes = {name: value for name, value in wanted.items() if value is not None}
    if not changes:
        return weights
    card = weights.card.model_copy(update=changes)
    return dataclasses.replace(weights, card=card, signature=f"{weights.signature} {changes}")


def _how_to_train(reason: str) -> str:
    return (
        f"The models sam3d and sam3d_auto are not offered: {reason}, and SAM's own weights know nothing of 3D"
        " until adapters are trained. Train them (python -m sam3d_label train IMAGES LABELS OUT), or convert a"
        " checkpoint of the 3DSAM-adapter authors (python -m sam3d_label convert-reference CKPT.pth.tar"
        " OUT.safetensors), then start with --conf weights OUT. Without --conf preset and weights, the shipped"
        " weights are used"
    )
