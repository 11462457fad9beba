"""Networks small enough for one core, with no parameter left at a value that hides it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sam3d_label.network import SAM3D, Config
from sam3d_label.network.sam3d import is_prompt_addition

SMALL = Config(
    crop=16,
    patch=8,
    upsample=2,
    width=16,
    depth=4,
    heads=2,
    mlp_ratio=2,
    window=2,
    sam_grid=8,
    sam_window=3,
    global_blocks=(2,),
    neck=16,
    prompt_heads=2,
    prompt_mlp=24,
    queries=3,
    decoder=4,
    dense=5,
)


@pytest.fixture
def small() -> Config:
    """A configuration with a 4-token grid."""
    return SMALL


@pytest.fixture
def make_network() -> Callable[..., SAM3D]:
    """A function that makes a network whose parameters are all random, the zero-initialised ones too."""

    def make(
        config: Config = SMALL, *, seed: int = 0, dtype: torch.dtype = torch.float64, additions: bool = True
    ) -> SAM3D:
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = SAM3D(config).to(dtype)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if additions or not is_prompt_addition(name):
                    noise = torch.randn(parameter.shape, generator=generator, dtype=dtype)
                    parameter.add_(noise * (0.5 if parameter.ndim < 2 else 0.2))
        return network.eval()

    return make
