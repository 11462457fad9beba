"""A SAM small enough to build in a test, in the layout of the official checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from sam3d_label.network import PRESETS, Config

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


def random_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(tensor.shape) for name, tensor in module.state_dict().items()}


def stand_in_for_vit_b(monkeypatch: pytest.MonkeyPatch, path: Path) -> Path:
    """Write a small checkpoint that `segment_anything` built, and let it stand for vit_b until the test ends."""
    monkeypatch.setitem(sam_model_registry, "vit_b", small_sam)
    monkeypatch.setitem(PRESETS, "vit_b", SMALL)
    torch.save(random_state(small_sam()), path)
    return path
