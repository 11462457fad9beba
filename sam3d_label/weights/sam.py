"""Official SAM checkpoints: from the 2D image encoder to the frozen trunk of the volumetric one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from platformdirs import user_cache_path
from torch import Tensor

from sam3d_label.errors import WeightsError
from sam3d_label.network import SAM3D, Config
from sam3d_label.network.sam3d import is_trunk
from sam3d_label.weights.adapter import freeze_trunk
from sam3d_label.weights.download import RemoteFile, download
from sam3d_label.weights.tensors import Tensors, check_finite, check_tensors, expected_shapes, read_checkpoint

_PUBLISHED = "https://dl.fbaipublicfiles.com/segment_anything/"

OFFICIAL = {
    "vit_b": RemoteFile(
        f"{_PUBLISHED}sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": RemoteFile(
        f"{_PUBLISHED}sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": RemoteFile(
        f"{_PUBLISHED}sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}
"""SAM's published checkpoints (Apache-2.0) by the name of their encoder."""


def cache_folder() -> Path:
    """Return the folder of downloaded checkpoints: ~/.cache/sam3d if it exists, else in the system's cache folder."""
    usual = Path.home() / ".cache" / "sam3d"
    return usual if usual.is_dir() else user_cache_path("sam3d", appauthor=False)


def fetch(name: str, folder: Path | None = None, *, overwrite: bool = False) -> Path:
    """Download an official checkpoint; see `download`.

    Args:
        name: vit_b, vit_l or vit_h.
        folder: Where to; `cache_folder()` when not given.
        overwrite: Whether to replace another file of its name.

    Raises:
        WeightsError: The name is none of these, or the download failed.
    """
    if name not in OFFICIAL:
        raise WeightsError(f"there is no SAM checkpoint {name!r}: choose from {', '.join(OFFICIAL)}")
    return download(OFFICIAL[name], folder or cache_folder(), overwrite=overwrite)


def read_encoder(path: Path, name: str) -> Tensors:
    """Return image encoder of a SAM checkpoint.

    Args:
        path: A checkpoint of the layout of SAM's own, such as theirs or one fine-tuned from it.
        name: Its encoder in `segment_anything`'s registry: vit_b, vit_l or vit_h.

    Returns:
        Tensors by their name in SAM's image encoder.

    Raises:
        WeightsError: The file is missing, damaged, or holds another model.
    """
    from segment_anything import sam_model_registry  # imports torchvision, which only a SAM checkpoint needs

    if name not in sam_model_registry:
        raise WeightsError(f"{path} holds no trunk called {name!r}: SAM has {', '.join(OFFICIAL)}")
    state = read_checkpoint(path)
    if not isinstance(state, dict):
        raise WeightsError(f"{path} is not a SAM checkpoint: it holds a {type(state).__name__}, no state dict")
    with torch.device("meta"):
        sam = sam_model_registry[name]()
    check_tensors(state, {key: tensor.shape for key, tensor in sam.state_dict().items()}, f"{path} as SAM {name}")
    check_finite(state, path)
    sam.load_state_dict(state, assign=True)
    return sam.image_encoder.state_dict()


def volumetric(encoder: Mapping[str, Tensor], config: Config) -> Tensors:
    """Convert SAM's image encoder: the whole trunk, and initial values for a part of the adapter.

    The trunk and the norms are SAM's. `rel_pos_d` starts as the mean of the tables of the other two axes, as
    in the paper; `slice_embed` starts as the mean over the slices of a token, so that a token starts as SAM's
    own patch embedding, averaged over depth.

    Args:
        encoder: State dict of SAM's image encoder.
        config: Sizes of the network.

    Returns:
        Tensors by their name in `SAM3D`.

    Raises:
        WeightsError: The encoder is of other sizes.
    """
    found = {"pos_embed": encoder.get("pos_embed")}
    for name, tensor in encoder.items():
        if name.startswith("patch_embed."):
            found[f"stem.{name}"] = tensor
        elif name.startswith("blocks."):
            found[name] = tensor
    found |= {f"blocks.{index}.attn.lr": torch.tensor(1.0) for index in range(config.depth)}
    tensors = {f"image_encoder.{name}": tensor for name, tensor in found.items() if tensor is not None}
    shapes = {name: shape for name, shape in expected_shapes(config).items() if is_trunk(name) or is_norm(name)}
    check_tensors(tensors, shapes, "SAM's image encoder")
    for index in range(config.depth):
        attention = f"image_encoder.blocks.{index}.attn."
        tensors[f"{attention}rel_pos_d"] = (tensors[f"{attention}rel_pos_h"] + tensors[f"{attention}rel_pos_w"]) / 2
    slices = torch.full((config.width, 1, 1, 1, config.patch), 1 / config.patch)
    return tensors | {
        "image_encoder.stem.slice_embed.weight": slices,
        "image_encoder.stem.slice_embed.bias": torch.zeros(config.width),
    }


def is_norm(name: str) -> bool:
    """Return whether a parameter of `SAM3D` is one of the norms that its blocks share with SAM's."""
    return ".blocks." in name and (".norm1." in name or ".norm2." in name)


def fresh_model(encoder: Mapping[str, Tensor], config: Config) -> SAM3D:
    """Return SAM with untrained adapters, in eval mode, trunk frozen; the rest as in `volumetric`."""
    model = SAM3D(config)
    model.load_state_dict(volumetric(encoder, config), strict=False)
    return freeze_trunk(model).eval()
