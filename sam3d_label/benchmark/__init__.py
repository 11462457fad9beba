"""Time and memory of the network, compared with the plain formulation of the same network."""

from sam3d_label.benchmark.comparison import run

__all__ = ["run"]
