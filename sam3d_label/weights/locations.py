"""Locations of weights: file names, shipped weights, and the file for a name or path from the user."""

from __future__ import annotations

import os
from pathlib import Path

from sam3d_label.errors import WeightsError
from sam3d_label.network.config import PRESETS

ADAPTER, TRUNK, CARD = "adapter.safetensors", "trunk.safetensors", "card.json"
DEFAULT = "tiny-geodesic"
SHIPPED = Path(__file__).parent / "shipped"
SLICE_ENCODER = Path(__file__).parent / "encoders" / "litemedsam.safetensors"
"""LiteMedSAM's converted image encoder, which all networks with slice features share."""


def shipped() -> list[str]:
    """Return the names of the weights that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD}"))


def adapter_file(name_or_path: str | os.PathLike[str] | None) -> Path:
    """Return the tensor file for a name or a path.

    Raises:
        WeightsError: There is none; the message says what there is.
    """
    name = DEFAULT if name_or_path is None else os.fspath(name_or_path)
    if name in shipped():
        return SHIPPED / name / ADAPTER
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / ADAPTER).is_file():
            raise WeightsError(f"{path} holds no {ADAPTER}: give a folder of saved weights, or the file itself")
        return path / ADAPTER
    if path.is_file():
        if path.suffix != ".safetensors":
            raise WeightsError(
                f"{path} is not a .safetensors file; convert a checkpoint of 3DSAM-adapter's authors with:"
                f" python -m sam3d_label convert-reference {path} OUT.safetensors"
            )
        return path
    if name in PRESETS:
        raise WeightsError(
            f"no weights are shipped for {name}: train them by python -m sam3d_label train … --preset {name},"
            " or convert a checkpoint of 3DSAM-adapter's authors; then give their path"
        )
    known = ", ".join(shipped()) or "none"
    raise WeightsError(f"{name} is neither a file, nor a folder, nor the name of shipped weights ({known})")


def card_file(path: Path) -> Path:
    """Return the card of a tensor file: NAME.card.json, or card.json in the folder."""
    own = path.with_suffix(".card.json")
    return own if own.is_file() else path.with_name(CARD)
