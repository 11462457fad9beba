"""The two linear layers of a transformer block."""

from __future__ import annotations

from torch import Tensor, nn


class MLPBlock(nn.Module):
    """Two linear layers, with the parameter names of SAM's `MLPBlock`.

    Our own so that the network imports neither `segment_anything` nor torchvision.
    """

    def __init__(self, width: int, hidden: int, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Transform the last axis of (..., width); the shape is kept."""
        return self.lin2(self.act(self.lin1(x)))
