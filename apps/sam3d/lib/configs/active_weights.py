"""The active weights: those of the configuration until a version is published, then the version."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Sequence

from lib.configs.app_config import AppConfig
from sam3d_label.errors import Sam3dError, WeightsError
from sam3d_label.model_update.versions import Versions
from sam3d_label.weights import Card, Weights, open_weights, shipped, untrained

logger = logging.getLogger(__name__)
CLICK = "positive_click"


class UntrainedError(WeightsError):
    """The network has not learned clicks yet, so that its masks would be meaningless."""


class ActiveWeights:
    """The active weights on each device; a version that is activated is used from the next request on.

    Args:
        config: The app's configuration.
        versions: The versions of its trainings.
    """

    def __init__(self, config: AppConfig, versions: Versions) -> None:
        self.config, self.versions = config, versions
        self._lock = threading.Lock()
        self._loaded: dict[str, tuple[str | None, Weights]] = {}

    def __call__(self, device: str = "cpu") -> Weights:
        """Return the weights that have learned clicks, on a device.

        Raises:
            UntrainedError: There are none yet; the message says how to get them.
            WeightsError: They are missing, damaged, or not of the configured preset.
        """
        weights = self.load(device)
        if CLICK not in weights.card.capabilities:
            raise UntrainedError(_how_to_train(f"the weights {weights.version} were never trained on clicks"))
        return weights

    def load(self, device: str = "cpu") -> Weights:
        """Return the active weights, or the untrained ones that the first training starts from; errors as in a call."""
        with self._lock:
            version = self.versions.current()
            loaded = self._loaded.get(device)
            if loaded is None or loaded[0] != version:
                loaded = (version, self._open(version, device, loaded))
                self._loaded[device] = loaded
            return loaded[1]

    def _open(self, version: str | None, device: str, before: tuple[str | None, Weights] | None) -> Weights:
        if version is None:
            return with_overrides(configured(self.config, device), self.config)
        try:
            weights = open_weights(self.versions.path(version), device, sam_checkpoint=self.config.sam_checkpoint)
            check_preset(self.config, weights, f"version {version}")
        except Sam3dError as error:
            if before is None:
                raise
            logger.error(f"Version {version} cannot be used, {before[1].version} stays active: {error}")
            return before[1]
        return with_overrides(weights, self.config)


def configured(config: AppConfig, device: str = "cpu") -> Weights:
    """Return the weights that the configuration names, or new adapters on the trunk of its preset.

    Raises:
        UntrainedError: The trunk of the preset, a SAM checkpoint, cannot be found.
        WeightsError: They are missing, damaged, or not of the configured preset.
    """
    named = config.weights or (config.preset if config.preset in shipped() else None)
    if named is None and config.preset is not None:
        try:
            return untrained(config.preset, config.sam_checkpoint, device)
        except WeightsError as error:
            reason = f"preset {config.preset} has no shipped weights, and adapters cannot be trained: {error}"
            raise UntrainedError(_how_to_train(reason)) from error
    weights = open_weights(named, device, sam_checkpoint=config.sam_checkpoint)
    check_preset(config, weights, f"weights {named}")
    return weights


def check_preset(config: AppConfig, weights: Weights, what: str) -> None:
    """Raise WeightsError if the weights are not of the configured preset."""
    if config.preset not in (None, weights.card.preset):
        raise WeightsError(
            f"--conf preset {config.preset}: {what} is of preset {weights.card.preset}; leave preset out, give other"
            " weights, or give these versions' successors a folder of their own by --conf model_dir"
        )


def with_overrides(weights: Weights, config: AppConfig) -> Weights:
    """Return the weights with the configured spacing and intensity rule, and another signature."""
    wanted = {"spacing": config.spacing, "intensity": config.intensity}
    changes = {name: value for name, value in wanted.items() if value is not None}
    if not changes:
        return weights
    card = weights.card.model_copy(update=changes)
    return dataclasses.replace(weights, card=card, signature=f"{weights.signature} {changes}")


def unprompted_label(labels: Sequence[str], card: Card) -> str:
    """Return the label that weights segment without a prompt: the first that they know by name, otherwise the first.

    Args:
        labels: Names of the structures that the app segments.
        card: Of the weights.
    """
    return next((label for label in labels if label in card.labels), labels[0])


def _how_to_train(reason: str) -> str:
    return (
        f"The models sam3d and sam3d_auto are not available yet: {reason}, and SAM's own weights are for 2D images"
        " until adapters are trained. Label a few cases and train (POST /train/sam3d), train elsewhere (python -m"
        " sam3d_label train IMAGES LABELS OUT), or convert a checkpoint of the 3DSAM-adapter authors (python -m"
        " sam3d_label convert-reference CKPT.pth.tar OUT.safetensors) and start with --conf weights OUT. Without"
        " --conf preset and weights, the shipped weights are used"
    )
