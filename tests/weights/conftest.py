"""Networks, cards and SAM checkpoints small enough to build in a test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT

from sam3d_label.network import SAM3D, Config
from sam3d_label.weights import Card, load, locations
from tests.helpers.sam import SMALL, random_state, small_image_encoder, stand_in_for_vit_b


@pytest.fixture
def small() -> Config:
    return SMALL


@pytest.fixture
def model() -> SAM3D:
    torch.manual_seed(0)
    model = SAM3D(SMALL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture
def card_values() -> dict[str, Any]:
    """What a valid card of `SMALL` says, as JSON has it."""
    return {
        "preset": "custom",
        "config": {**vars(SMALL), "global_blocks": list(SMALL.global_blocks)},
        "base": {"name": "small", "sha256": None},
        "spacing": 1.5,
        "intensity": {"kind": "percentile", "lower": 1.0, "upper": 99.0},
        "capabilities": ["positive_click", "box"],
        "training": {"data": [{"name": "phantoms", "licence": "Apache-2.0", "cases": 3}], "epochs": 2},
        "licence": "Apache-2.0",
        "version": "0001",
        "date": "2025-01-31",
    }


@pytest.fixture
def make_card(card_values: dict[str, Any]) -> Callable[..., Card]:
    """A valid card of `SMALL`, with changes."""
    return lambda **changes: Card.model_validate({**card_values, **changes})


@pytest.fixture(autouse=True)
def no_files_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a SAM checkpoint of the user nor shipped weights are found unless the test puts them there."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(load.SAM_CHECKPOINT, raising=False)
    monkeypatch.setattr(locations, "SHIPPED", tmp_path / "shipped")


@pytest.fixture
def sam_encoder() -> ImageEncoderViT:
    """A small SAM image encoder with random values everywhere."""
    encoder = small_image_encoder()
    encoder.load_state_dict(random_state(encoder))
    return encoder


@pytest.fixture
def sam_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SAM checkpoint that `segment_anything` built, small, standing for vit_b throughout the test."""
    return stand_in_for_vit_b(monkeypatch, tmp_path / "sam_small.pth")
