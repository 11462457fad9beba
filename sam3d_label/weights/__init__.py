"""Weights of the network: SAM's own, the authors', and ours, each with its card."""

from typing import TYPE_CHECKING

import lazy_loader

from sam3d_label.weights.card import Base, Card, DataSource, Training
from sam3d_label.weights.locations import DEFAULT, shipped

if TYPE_CHECKING:
    from sam3d_label.weights.load import Weights, load_model, open_weights, untrained

__all__ = [
    "DEFAULT",
    "Base",
    "Card",
    "DataSource",
    "Training",
    "Weights",
    "load_model",
    "open_weights",
    "shipped",
    "untrained",
]
__getattr__, _, _ = lazy_loader.attach(
    __name__, submod_attrs={"load": ["Weights", "load_model", "open_weights", "untrained"]}
)
