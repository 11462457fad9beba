"""Load a network from a name or a path."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path

from torch import Tensor

from sam3d_label.errors import Sam3dError, WeightsError
from sam3d_label.image.intensity import SOFT_TISSUE, CtOrMr, IntensityRule, Percentile
from sam3d_label.network import PRESETS, SAM3D, Config, PromptableNetwork
from sam3d_label.network.sam3d import is_trunk
from sam3d_label.weights import locations
from sam3d_label.weights.adapter import assemble, fixed_tensors, freeze_trunk, load_adapter, load_trunk
from sam3d_label.weights.card import Base, Card, Training
from sam3d_label.weights.locations import SLICE_ENCODER, TRUNK, adapter_file, card_file
from sam3d_label.weights.sam import OFFICIAL, cache_folder, fresh_model, read_encoder, volumetric
from sam3d_label.weights.tensors import Tensors, sha256

SAM_CHECKPOINT = "SAM3D_SAM_CHECKPOINT"
"""Environment variable with the path of the SAM checkpoint that adapters belong to."""

UNTRAINED_INTENSITY = CtOrMr(ct=SOFT_TISSUE, mr=Percentile())
"""The usual soft-tissue window for CT, percentiles for MR."""


@dataclass(frozen=True)
class Weights:
    """A network and its card.

    Attributes:
        model: In eval mode.
        card: What it was made from and what it can do.
        version: Version of the weights, as the card has it.
        signature: Hash that differs between any two weights: part of every cache key.
    """

    model: PromptableNetwork
    card: Card
    version: str
    signature: str


def open_weights(
    name_or_path: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    *,
    sam_checkpoint: str | os.PathLike[str] | None = None,
) -> Weights:
    """Open weights.

    Args:
        name_or_path: A shipped name; a folder with adapter.safetensors and card.json; such an adapter; a
            converted checkpoint of the authors (NAME.safetensors with NAME.card.json). None for the shipped
            default.
        device: Where the network goes.
        sam_checkpoint: The file with the trunk that the adapter was trained on, when it is neither shipped
            nor next to the adapter. Without it, $SAM3D_SAM_CHECKPOINT and ~/.cache/sam3d are searched.

    Raises:
        WeightsError: There are no such weights, a file is missing, damaged or belongs to another, or the
            trunk cannot be found; the message says how to fix it.
        Sam3dError: The device is not available.
    """
    path = adapter_file(name_or_path)
    card_path = card_file(path)
    card = Card.read(card_path)
    tensors = load_adapter(path, card)
    digests = [sha256(card_path), sha256(path)]
    if card.config.slice_features:
        digests.append(sha256(SLICE_ENCODER))
    if any(is_trunk(name) for name in tensors):
        check_base(card.base, path)
    else:
        trunk = find_trunk(card.base, path.parent, sam_checkpoint)
        digests.append(sha256(trunk))
        tensors |= read_trunk(trunk, card.base.name, card.config)
    model = to_device(assemble(card.config, tensors), device)
    return Weights(model, card, card.version, signature(*digests))


def load_model(
    name_or_path: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    *,
    sam_checkpoint: str | os.PathLike[str] | None = None,
) -> PromptableNetwork:
    """Return only the network of `open_weights`; arguments and errors are the same."""
    return open_weights(name_or_path, device, sam_checkpoint=sam_checkpoint).model


def untrained(
    preset: str,
    sam_checkpoint: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    *,
    intensity: IntensityRule = UNTRAINED_INTENSITY,
    spacing: float = 1.0,
) -> Weights:
    """Create untrained adapters on a trunk, to start training from.

    The trunk is SAM's for the sizes of SAM and the shipped one for others. A preset that has neither starts
    at random, with nothing frozen.

    Args:
        preset: A name of `PRESETS`.
        sam_checkpoint: As in `open_weights`.
        device: Where the network goes.
        intensity: How intensities will be normalised.
        spacing: Voxels that the network will see, millimetres.

    Raises:
        WeightsError: The preset is unknown, or its trunk cannot be found or does not fit.
        Sam3dError: The device is not available.
    """
    if preset not in PRESETS:
        raise WeightsError(f"there is no preset {preset!r}: choose from {', '.join(PRESETS)}")
    model, base = untrained_network(preset, sam_checkpoint)
    card = Card(
        preset=preset,
        config=model.config,
        base=base,
        spacing=spacing,
        intensity=intensity,
        capabilities=[],
        training=Training(),
        licence="Apache-2.0",
        version="untrained",
        date=date.today().isoformat(),
    )
    in_no_file = {n: t for n, t in model.state_dict().items() if base.sha256 is None or not is_trunk(n)}
    digest = signature(base.sha256 or "", tensors_digest(in_no_file))
    return Weights(to_device(model, device), card, card.version, digest)


def untrained_network(preset: str, sam_checkpoint: str | os.PathLike[str] | None) -> tuple[SAM3D, Base]:
    """Return the network of `untrained` and the file of its trunk; arguments and errors are the same."""
    config = PRESETS[preset]
    if preset in OFFICIAL:
        trunk = find_sam(preset, sam_checkpoint)
        return fresh_model(read_encoder(trunk, preset), config), sam_base(trunk, preset)
    model = SAM3D(config).eval()
    model.load_state_dict(fixed_tensors(config), strict=False)
    trunk = locations.SHIPPED / preset / TRUNK
    if not trunk.is_file():
        return model, Base(name=preset)
    model.load_state_dict(load_trunk(trunk, config), strict=False)
    return freeze_trunk(model), Base(name=preset, sha256=sha256(trunk))


def sam_base(trunk: Path, name: str) -> Base:
    """Return the base of adapters on a SAM checkpoint; it has the name of the file unless the file is SAM's own."""
    digest = sha256(trunk)
    return Base(name=name, sha256=digest, checkpoint=None if digest == OFFICIAL[name].sha256 else trunk.name)


def find_trunk(base: Base, folder: Path, sam_checkpoint: str | os.PathLike[str] | None) -> Path:
    """Return the file with the trunk of an adapter, recognised by its digest.

    Args:
        base: What the card of the adapter says.
        folder: Folder of the adapter.
        sam_checkpoint: As in `open_weights`.

    Raises:
        WeightsError: It is in none of the locations.
    """
    if base.sha256 is None:
        if not (folder / TRUNK).is_file():
            raise WeightsError(f"{folder / TRUNK} is missing: the card names no other trunk for this adapter")
        return folder / TRUNK
    local = [folder / TRUNK, locations.SHIPPED / base.name / TRUNK]
    others = ""
    for path in chain(local, sam_locations(base.name, sam_checkpoint, base.checkpoint)):
        if path.is_file():
            if sha256(path) == base.sha256:
                return path
            own = base.name in OFFICIAL and sha256(path) == OFFICIAL[base.name].sha256
            others += f"; {path} is {'SAM itself' if own else 'another file'} ({sha256(path)[:8]}…)"
    trained_on = f"{base.checkpoint}, a {base.name}" if base.checkpoint else base.name
    raise WeightsError(
        f"the adapter was trained on {trained_on} (SHA-256 {base.sha256[:8]}…), which was not found{others}."
        f" {how_to_get(base.name, base.checkpoint)}"
    )


def find_sam(name: str, sam_checkpoint: str | os.PathLike[str] | None) -> Path:
    """Return a SAM checkpoint, whatever its digest: the one given, that of the environment, or the downloaded one.

    Raises:
        WeightsError: There is none.
    """
    for path in sam_locations(name, sam_checkpoint):
        if path.is_file():
            return path
    raise WeightsError(f"the trunk of {name}, a SAM checkpoint, was not found. {how_to_get(name)}")


def sam_locations(
    name: str, sam_checkpoint: str | os.PathLike[str] | None, checkpoint: str | None = None
) -> Iterator[Path]:
    """Return the possible locations of a trunk that is not part of the package; only the first that the user named.

    Args:
        name: As in `Base`.
        sam_checkpoint: As in `open_weights`.
        checkpoint: As in `Base`.
    """
    if sam_checkpoint is not None:
        yield existing_file(sam_checkpoint, "sam_checkpoint")
    elif SAM_CHECKPOINT in os.environ:
        yield existing_file(os.environ[SAM_CHECKPOINT], f"${SAM_CHECKPOINT}")
    if checkpoint is not None:
        yield cache_folder() / checkpoint
    yield cache_folder() / (OFFICIAL[name].name if name in OFFICIAL else name)


def existing_file(path: str | os.PathLike[str], by: str) -> Path:
    """Return the path of a file that the user named; WeightsError when it is missing."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise WeightsError(f"{by} is {found}, which is not a file")
    return found


def how_to_get(name: str, checkpoint: str | None = None) -> str:
    """Return how to get a missing trunk; arguments as in `Base`."""
    give = f"give its path as sam_checkpoint or in ${SAM_CHECKPOINT}"
    if checkpoint is not None:
        return f"Put that file at {cache_folder() / checkpoint}, or {give}"
    if name not in OFFICIAL:
        return f"Find the file {name} and {give}"
    target = cache_folder() / OFFICIAL[name].name
    return f"Download {OFFICIAL[name].url} to {target}, or {give}"


def check_base(base: Base, path: Path) -> None:
    """Raise `WeightsError` when a self-contained file is not the one that its card was written for."""
    if base.sha256 is not None and sha256(path) != base.sha256:
        raise WeightsError(f"{path} is not the file that its card describes (SHA-256 differs): copy both again")


def read_trunk(path: Path, name: str, config: Config) -> Tensors:
    """Return the trunk in an own file or in a SAM checkpoint; WeightsError when it is damaged or does not fit."""
    if path.suffix == ".safetensors":
        return load_trunk(path, config)
    encoder = volumetric(read_encoder(path, name), config)
    return {name: tensor for name, tensor in encoder.items() if is_trunk(name)}


def to_device(model: SAM3D, device: str) -> SAM3D:
    """Move a network to a device; Sam3dError when there is no such device."""
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise Sam3dError(f"device {device!r} is not available: {str(error).splitlines()[0]}") from error


def signature(*parts: str) -> str:
    """Return one hash of several texts."""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def tensors_digest(tensors: dict[str, Tensor]) -> str:
    """Return a hash of tensors that are in no file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
