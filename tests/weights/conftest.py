"""Networks, cards and SAM checkpoints small enough to build in a test."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from sam3d_label.network import PRESETS, SAM3D, Config
from sam3d_label.weights import Card, load, locations

SMALL = Config(
    crop=32,
    width=24,
    depth=4,
    heads=3,
    mlp_ratio=2,
    window=4,
    sam_grid=16,
    sam_window=6,
    global_blocks=(1, 3),
    neck=16,
    prompt_heads=2,
    prompt_mlp=12,
    queries=3,
    decoder=4,
)


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


def small_image_encoder(config: Config = SMALL) -> ImageEncoderViT:
    return ImageEncoderViT(
        depth=config.depth,
        embed_dim=config.width,
        img_size=config.sam_grid * config.patch,
        patch_size=config.patch,
        mlp_ratio=config.mlp_ratio,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        num_heads=config.heads,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=config.global_blocks,
        window_size=config.sam_window,
        out_chans=8,
    )


def small_sam(checkpoint: None = None) -> Sam:
    """What `segment_anything` builds for a checkpoint, at a small width."""
    transformer = TwoWayTransformer(depth=1, embedding_dim=8, mlp_dim=8, num_heads=2)
    return Sam(
        image_encoder=small_image_encoder(),
        prompt_encoder=PromptEncoder(
            embed_dim=8, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=4
        ),
        mask_decoder=MaskDecoder(num_multimask_outputs=3, transformer=transformer, transformer_dim=8),
    )


@pytest.fixture
def sam_encoder() -> ImageEncoderViT:
    """A small SAM image encoder with random values everywhere."""
    encoder = small_image_encoder()
    encoder.load_state_dict(random_state(encoder))
    return encoder


@pytest.fixture
def sam_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SAM checkpoint that `segment_anything` built, small, standing for vit_b throughout the test."""
    monkeypatch.setitem(sam_model_registry, "vit_b", small_sam)
    monkeypatch.setitem(PRESETS, "vit_b", SMALL)
    path = tmp_path / "sam_small.pth"
    torch.save(random_state(small_sam()), path)
    return path


def random_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(tensor.shape) for name, tensor in module.state_dict().items()}
