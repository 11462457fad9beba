"""Files of tensors: read whole, checked against the network they are for, written whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sam3d_label.errors import StorageError, WeightsError
from sam3d_label.io import replacing, require_space
from sam3d_label.network import SAM3D, Config
from sam3d_label.network.sam3d import is_fixed

Tensors = dict[str, Tensor]

_scalar: Callable[..., object] = cast(Callable[..., object], np.float64(0).__reduce__()[0])
NUMPY_SCALARS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    np.dtype,
    type(np.dtype("float32")),
    type(np.dtype("float64")),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]
"""Constructors of plain numbers, such as a loss, that checkpoints contain in addition to tensors; they run no code."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal; the file is read once until it changes.

    Raises:
        WeightsError: It cannot be read.
    """
    try:
        stat = path.stat()
        return _sha256(str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


@lru_cache(maxsize=64)
def _sha256(path: str, inode: int, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Return tensors and metadata of a safetensors file.

    Raises:
        WeightsError: It is missing, truncated, another kind of file, or holds NaN or infinite values.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing") from error
    except (OSError, SafetensorError) as error:
        size = path.stat().st_size if path.is_file() else 0
        raise WeightsError(
            f"{path} ({size} bytes) is truncated or not a safetensors file: copy it again ({error})"
        ) from error
    check_finite(tensors, path)
    return tensors, metadata


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str], dtype: torch.dtype) -> None:
    """Write tensors in one precision, to a temporary file that then replaces the target.

    Raises:
        WeightsError: They hold NaN or infinite values, or the file cannot be written.
    """
    stored = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    check_finite(stored, path)
    try:
        with replacing(path) as temporary:
            save_file(stored, temporary, metadata)
            os.chmod(temporary, 0o644)
    except StorageError:
        raise
    except (OSError, SafetensorError) as error:
        require_space(path, error)
        raise WeightsError(f"{path} cannot be written: {error}") from error


def read_checkpoint(path: Path) -> object:
    """Return the contents of a PyTorch checkpoint without running code in it.

    Raises:
        WeightsError: It is missing, truncated, another kind of file, or holds more than tensors and numbers.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is {'a folder, not a checkpoint' if path.is_dir() else 'missing'}")
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise errors of any kind
        if "GLOBAL" in str(error) or "Unsupported class" in str(error):
            raise WeightsError(
                f"{path} holds pickled objects besides tensors. They could run code, so they are not loaded:"
                " store only its state dicts"
            ) from error
        raise WeightsError(
            f"{path} ({path.stat().st_size} bytes) is truncated or not a PyTorch checkpoint: copy it again"
        ) from error


@lru_cache(maxsize=8)
def expected_shapes(config: Config) -> dict[str, torch.Size]:
    """Return the shape of each parameter of a network of these sizes, by name; without the encoder of slices."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in SAM3D(config).state_dict().items() if not is_fixed(name)}


def check_tensors(tensors: Mapping[str, object], expected: Mapping[str, torch.Size], what: str) -> None:
    """Check that tensors have exactly the expected names and shapes.

    Args:
        tensors: Tensors by name.
        expected: Shapes by name.
        what: What the tensors are, for the message.

    Raises:
        WeightsError: Some are missing, too many, or of another shape; the message names the first few.
    """
    odd = [name for name in tensors if name in expected and not isinstance(tensors[name], Tensor)]
    shapes = {name: tensor.shape for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    other = [name for name in expected if name in shapes and shapes[name] != expected[name]]
    found = {
        "lacks": [name for name in expected if name not in tensors],
        "has unexpected": [str(name) for name in tensors if name not in expected],
        "holds no tensor for": odd,
        "has other shapes than the network for": [
            f"{name} {tuple(shapes[name])} instead of {tuple(expected[name])}" for name in other
        ],
    }
    faults = [f"{fault} {abbreviated(names)}" for fault, names in found.items() if names]
    if faults:
        raise WeightsError(f"{what} does not fit the network: it {'; it '.join(faults)}")


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise `WeightsError` when a tensor holds NaN or infinite values."""
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise WeightsError(
            f"{path}: NaN or infinite values in {abbreviated(broken)}: the training diverged, use earlier weights"
        )


def abbreviated(names: list[str], shown: int = 3) -> str:
    """Return the first few names and the number of the others."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
