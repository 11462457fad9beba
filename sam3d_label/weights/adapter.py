"""Weights of this project: the trained parameters in a small file, the frozen trunk in another, and the card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from sam3d_label.errors import WeightsError
from sam3d_label.network import SAM3D, Config, PromptableNetwork
from sam3d_label.network.sam3d import FIXED, is_fixed, is_trunk
from sam3d_label.weights.card import FORMAT, Card
from sam3d_label.weights.litemedsam import load_encoder
from sam3d_label.weights.locations import ADAPTER, CARD, SLICE_ENCODER
from sam3d_label.weights.tensors import (
    Tensors,
    check_tensors,
    expected_shapes,
    read_safetensors,
    write_safetensors,
)

Network = TypeVar("Network", bound=nn.Module)
Entry = TypeVar("Entry")


def save_adapter(model: PromptableNetwork, card: Card, folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write what training changes to `folder`/adapter.safetensors, then the card to `folder`/card.json.

    Each file is written under a temporary name and renamed, the card last: a folder with a card is complete.

    Args:
        model: The network.
        card: Its card; the sizes and the base must be those of the model.
        folder: Made when missing.
        dtype: Precision of the file.

    Returns:
        Path of the adapter.

    Raises:
        WeightsError: The card is of another network, a tensor is not finite, or a file cannot be written.
    """
    if card.config != model.config:
        raise WeightsError(f"the card describes {card.config}, the model is {model.config}")
    path = Path(folder) / ADAPTER
    adapter = without_trunk(stored_tensors(model))
    write_safetensors(adapter, path, metadata("adapter", card), dtype)
    card.write(path.with_name(CARD))
    return path


def save_trunk(model: PromptableNetwork, path: Path, *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write the trunk, for a network that has no SAM weights of its size; the rest as in `save_adapter`."""
    trunk = only_trunk(stored_tensors(model))
    write_safetensors(trunk, Path(path), {"format": str(FORMAT), "kind": "trunk"}, dtype)
    return Path(path)


def save_whole(model: PromptableNetwork, path: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write trunk and adapter in one file; arguments and errors as in `save_adapter`."""
    write_safetensors(stored_tensors(model), Path(path), {"format": str(FORMAT), "kind": "whole"}, dtype)
    return Path(path)


def load_adapter(path: Path, card: Card) -> Tensors:
    """Read an adapter, or a whole network, and check it against its card.

    Args:
        path: A safetensors file of `save_adapter` or `save_whole`.
        card: Its card.

    Returns:
        Tensors by name; the trunk is among them when the file is self-contained.

    Raises:
        WeightsError: The file is missing or damaged, its tensors do not fit the card's network, or the card
            is that of another file.
    """
    tensors, stored = read_safetensors(path)
    if stored.get("format", str(FORMAT)) != str(FORMAT):
        raise WeightsError(f"{path} has format {stored['format']}, this version reads {FORMAT}: update sam3d_label")
    if stored.get("kind") == "trunk":
        raise WeightsError(f"{path} is a trunk only: give the adapter that was trained on it")
    whole = any(is_trunk(name) for name in tensors)
    shapes = expected_shapes(card.config)
    check_tensors(tensors, shapes if whole else without_trunk(shapes), str(path))
    expected = metadata("adapter", card)
    differing = [key for key in ("preset", "base_sha256") if stored.get(key, expected[key]) != expected[key]]
    if differing:
        raise WeightsError(f"{path} is not the file that the card describes ({', '.join(differing)}): copy both again")
    return tensors


def load_trunk(path: Path, config: Config) -> Tensors:
    """Read the trunk from a file of `save_trunk`, or from a self-contained one.

    Raises:
        WeightsError: The file is missing, damaged, or of another network.
    """
    trunk = {name: tensor for name, tensor in read_safetensors(path)[0].items() if is_trunk(name)}
    check_tensors(trunk, only_trunk(expected_shapes(config)), f"the trunk in {path}")
    return trunk


def assemble(config: Config, tensors: Mapping[str, Tensor]) -> SAM3D:
    """Return a network in float32, in eval mode and with its trunk frozen, from all its stored tensors by name."""
    model = SAM3D(config)
    model.load_state_dict({**tensors, **fixed_tensors(config)})
    return freeze_trunk(model).eval()


def stored_tensors(model: nn.Module) -> Tensors:
    """Return the tensors of a network, without the encoder of slices, which is in a file of its own."""
    return {name: tensor for name, tensor in model.state_dict().items() if not is_fixed(name)}


def fixed_tensors(config: Config) -> Tensors:
    """Return the tensors of the encoder of slices; none for networks without it.

    Raises:
        WeightsError: Its file is missing or damaged.
    """
    if not config.slice_features:
        return {}
    return {f"{FIXED}{name}": tensor for name, tensor in load_encoder(SLICE_ENCODER).items()}


def freeze_trunk(model: Network, *, trunk: bool = True) -> Network:
    """Let only the adapted part of a network train; returns the network.

    Args:
        model: The network.
        trunk: Whether the trunk is frozen; the encoder of slices is frozen in any case.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not (is_fixed(name) or (trunk and is_trunk(name)))
    return model


def metadata(kind: str, card: Card) -> dict[str, str]:
    """Return the metadata of the tensor file."""
    return {"format": str(FORMAT), "kind": kind, "preset": card.preset, "base_sha256": card.base.sha256 or ""}


def only_trunk(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the entries of the frozen trunk."""
    return {name: entry for name, entry in entries.items() if is_trunk(name)}


def without_trunk(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the entries that training changes."""
    return {name: entry for name, entry in entries.items() if not is_trunk(name)}
