"""Weights of the network: SAM's own, the authors', and ours, each with its card."""

from sam3d_label.weights.card import Base, Card, DataSource, Training
from sam3d_label.weights.opening import DEFAULT, Weights, load_model, open_weights, shipped, untrained

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
