"""Checkpoints of 3DSAM-adapter's authors (`.pth.tar`), in our network and in our files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from sam3d_label.errors import WeightsError
from sam3d_label.image.intensity import Window
from sam3d_label.network import PRESETS, SAM3D, Config
from sam3d_label.network.sam3d import is_prompt_addition
from sam3d_label.weights.adapter import assemble, save_whole
from sam3d_label.weights.card import CUSTOM, Base, Card, DataSource, Training
from sam3d_label.weights.tensors import (
    Tensors,
    abbreviated,
    check_finite,
    check_tensors,
    expected_shapes,
    read_checkpoint,
    sha256,
)

UPSAMPLE = 4
"""The authors enlarge the crop by this before the patch embedding; no tensor shows it."""

ENCODER, DECODER, PROMPTS = "encoder_dict", "decoder_dict", "feature_dict"
PROMPT_ENCODERS = 4
"""Prompt encoders in a checkpoint, one a feature map; only the last one is used."""

UNUSED = re.compile(r"attn_mask$|^positional_encoding_gaussian_matrix$")


@dataclass(frozen=True)
class Dataset:
    """Properties of the authors' training on one data set."""

    name: str
    label: str
    source: str
    window: Window


DATASETS = {
    "kits21": Dataset(
        "KiTS21",
        "kidney tumor",
        "https://kits-challenge.org/kits21",
        Window(lower=-54, upper=247, mean=59.53867, std=55.457336),
    ),
    "lits17": Dataset(
        "LiTS17",
        "liver tumor",
        "https://competitions.codalab.org/competitions/17094",
        Window(lower=-48, upper=163, mean=60.057533, std=40.198017),
    ),
    "pancreas": Dataset(
        "MSD-Pancreas",
        "pancreas tumor",
        "http://medicaldecathlon.com",
        Window(lower=-39, upper=204, mean=68.45214, std=63.422806),
    ),
    "colon": Dataset(
        "MSD-Colon",
        "colon tumor",
        "http://medicaldecathlon.com",
        Window(lower=-57, upper=175, mean=65.175035, std=32.651197),
    ),
}
"""The authors' data sets, with their window in HU, mean and deviation; a checkpoint does not name its own."""


def load_reference(path: str | Path, prompt_heads: int = 8) -> SAM3D:
    """Load a checkpoint of the authors; for clicks inside, the network answers as their code does.

    Args:
        path: Their `.pth.tar` file.
        prompt_heads: Attention heads of the prompt encoder, which no tensor shows; the authors use 8.

    Returns:
        The network, float32, on the CPU, in eval mode.

    Raises:
        WeightsError: The file is missing, damaged, holds code, or is not a complete checkpoint of this
            architecture; or the prompt encoder cannot have so many heads.
    """
    path = Path(path)
    encoder, decoder, prompts = state_dicts(path)
    config = infer_config(encoder, decoder, prompts, prompt_heads, path)
    tensors = {
        network_name(name): tensor
        for state in (encoder, decoder, prompts)
        for name, tensor in state.items()
        if not UNUSED.search(name)
    }
    shapes = expected_shapes(config)
    check_tensors(tensors, {name: s for name, s in shapes.items() if not is_prompt_addition(name)}, str(path))
    check_finite(tensors, path)
    return assemble(config, tensors | inert_additions(config))


def convert(checkpoint: str | Path, out: str | Path, *, dataset: str = "kits21", prompt_heads: int = 8) -> Card:
    """Convert a checkpoint of the authors to a self-contained file of this project, with its card next to it.

    Args:
        checkpoint: Their `.pth.tar` file.
        out: Path to write, NAME.safetensors; the card goes to NAME.card.json.
        dataset: Which of `DATASETS` it was trained on: it fixes how intensities are normalised, and the
            checkpoint does not contain it. The card records the choice.
        prompt_heads: As in `load_reference`.

    Returns:
        The card.

    Raises:
        WeightsError: The data set is unknown, `out` has another suffix or cannot be written, or as in
            `load_reference`.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if dataset not in DATASETS:
        raise WeightsError(f"unknown data set {dataset!r}: choose from {', '.join(DATASETS)}")
    if out.suffix != ".safetensors":
        raise WeightsError(f"{out}: the name of converted weights ends in .safetensors")
    model = load_reference(checkpoint, prompt_heads)
    save_whole(model, out)
    card = reference_card(model.config, checkpoint, out, DATASETS[dataset])
    card.write(out.with_suffix(".card.json"))
    return card


def reference_card(config: Config, checkpoint: Path, out: Path, dataset: Dataset) -> Card:
    """Return the card of a converted checkpoint."""
    digest = sha256(checkpoint)
    return Card(
        preset=next((name for name, preset in PRESETS.items() if preset == config), CUSTOM),
        config=config,
        base=Base(name=out.name, sha256=sha256(out)),
        spacing=1.0,
        intensity=dataset.window,
        capabilities=["positive_click"],
        labels=[dataset.label],
        training=Training(
            data=[DataSource(name=dataset.name, licence="see the terms of the data set", source=dataset.source)],
            **{
                "method": "3DSAM-adapter, trained by its authors (arXiv 2306.13465)",
                "checkpoint": checkpoint.name,
                "checkpoint_sha256": digest,
                "note": f"{dataset.name} was named at conversion: the checkpoint itself does not name it",
            },
        ),
        licence="none stated by the authors",
        version=f"reference-{digest[:8]}",
        date=date.today().isoformat(),
    )


def state_dicts(path: Path) -> tuple[Tensors, Tensors, Tensors]:
    """Return the state dicts of the encoder, the decoder and the last prompt encoder.

    Raises:
        WeightsError: The file is unreadable or is not of the authors' layout.
    """
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict):
        raise WeightsError(f"{path} is not a checkpoint of the authors: it holds a {type(checkpoint).__name__}")
    missing = [key for key in (ENCODER, DECODER, PROMPTS) if key not in checkpoint]
    if missing:
        held = abbreviated([str(key) for key in checkpoint]) or "nothing"
        raise WeightsError(f"{path} is not a checkpoint of the authors: it lacks {', '.join(missing)} and has {held}")
    prompts = checkpoint[PROMPTS]
    if not isinstance(prompts, (list, tuple)) or len(prompts) != PROMPT_ENCODERS:
        size = f"{len(prompts)} entries" if isinstance(prompts, (list, tuple)) else f"a {type(prompts).__name__}"
        raise WeightsError(f"{path}: {PROMPTS} has {size} instead of a list of {PROMPT_ENCODERS} prompt encoders")
    parts = {ENCODER: checkpoint[ENCODER], DECODER: checkpoint[DECODER], PROMPTS: prompts[-1]}
    for key, state in parts.items():
        if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
            raise WeightsError(f"{path}: {key} is not a state dict of tensors")
    return parts[ENCODER], parts[DECODER], parts[PROMPTS]


def infer_config(
    encoder: Mapping[str, Tensor],
    decoder: Mapping[str, Tensor],
    prompts: Mapping[str, Tensor],
    prompt_heads: int,
    path: Path,
) -> Config:
    """Return the sizes of the network, read from the shapes of its tensors.

    Raises:
        WeightsError: A tensor that defines a size is missing or invalid, or the sizes fit no network.
    """
    try:
        sizes = encoder_sizes(encoder)
        prompt_layers = 1 + last_index(prompts, "transformer.layers")
        prompt_mlp = prompts["transformer.layers.0.mlp.lin1.weight"].shape[0]
        queries = prompts["transformer.layers.0.global_query"].shape[1]
        channels = decoder["cls.0.weight"].shape[0]
    except KeyError as error:
        raise WeightsError(f"{path} is not a complete checkpoint of the authors: it lacks {error}") from error
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"{path}: tensors of unexpected shapes, no network has them ({error})") from error
    if prompt_heads < 1 or sizes["neck"] % (2 * prompt_heads):
        raise WeightsError(
            f"prompt_heads={prompt_heads} does not divide the {sizes['neck'] // 2} inner channels of the"
            f" prompt encoder in {path}: give the number of heads that it was trained with"
        )
    try:
        return Config(
            **sizes,
            prompt_layers=prompt_layers,
            prompt_heads=prompt_heads,
            prompt_mlp=prompt_mlp,
            queries=queries,
            decoder=channels,
        )
    except ValueError as error:
        raise WeightsError(f"{path}: tensors of unexpected shapes, no network has them ({error})") from error


class EncoderSizes(TypedDict, total=False):
    """The encoder's share of `Config`; those that are not in a checkpoint keep their default."""

    crop: int
    patch: int
    upsample: int
    width: int
    depth: int
    heads: int
    mlp_ratio: int
    sam_grid: int
    global_blocks: tuple[int, ...]
    neck: int
    sam_window: int
    window: int


def encoder_sizes(encoder: Mapping[str, Tensor]) -> EncoderSizes:
    """Return the encoder's share of `Config`; a KeyError, IndexError or ValueError when one is odd or missing."""
    _, sam_grid, _, width = encoder["pos_embed"].shape
    depth = 1 + last_index(encoder, "blocks")
    patch = encoder["patch_embed.proj.weight"].shape[-1]
    tables = [encoder[f"blocks.{index}.attn.rel_pos_h"].shape for index in range(depth)]
    windowed = [rows for rows, _ in tables if rows != 2 * sam_grid - 1]
    sizes: EncoderSizes = {
        "crop": encoder["depth_embed"].shape[1] * patch // UPSAMPLE,
        "patch": patch,
        "upsample": UPSAMPLE,
        "width": width,
        "depth": depth,
        "heads": width // tables[0][1],
        "mlp_ratio": encoder["blocks.0.mlp.lin1.weight"].shape[0] // width,
        "sam_grid": sam_grid,
        "global_blocks": tuple(index for index, (rows, _) in enumerate(tables) if rows == 2 * sam_grid - 1),
        "neck": encoder["neck_3d.0.0.weight"].shape[0],
    }
    if windowed:
        sizes["sam_window"] = (windowed[0] + 1) // 2
    if "blocks.0.attn_mask" in encoder:
        sizes["window"] = round(encoder["blocks.0.attn_mask"].shape[-1] ** (1 / 3))
    return sizes


def last_index(names: Iterable[str], prefix: str) -> int:
    """Return the largest number after a prefix; KeyError where there is none."""
    found = [int(m[1]) for name in names if (m := re.match(rf"{re.escape(prefix)}\.(\d+)\.", name))]
    if not found:
        raise KeyError(f"{prefix}.*")
    return max(found)


def network_name(name: str) -> str:
    """Return the name in `SAM3D` of a tensor of the authors; names of unknown parts are kept."""
    if match := re.match(r"mlahead\.head([2-5])\.(.+)", name):
        return f"mask_decoder.heads.{int(match[1]) - 2}.{match[2]}"
    for theirs, prefix in RENAMED.items():
        if name.startswith(theirs):
            return prefix + name.removeprefix(theirs)
    return name


RENAMED = {
    "cls.0.": "mask_decoder.fuse.",
    "cls.3.": "mask_decoder.classify.",
    "transformer.": "prompt_encoder.",
    "patch_embed.": "image_encoder.stem.patch_embed.",
    "slice_embed.": "image_encoder.stem.slice_embed.",
    "neck_3d.": "image_encoder.necks.",
    "blocks.": "image_encoder.blocks.",
    "pos_embed": "image_encoder.pos_embed",
    "depth_embed": "image_encoder.depth_embed",
}


def inert_additions(config: Config) -> Tensors:
    """Return the prompts that the paper does not know, without effect, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = SAM3D(config).state_dict()
    return {name: tensor for name, tensor in state.items() if is_prompt_addition(name)}
