"""The authors' own numbers: a checkpoint in their format and what their code made of a volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sam3d_label.network import SAM3D, Embedding
from sam3d_label.network.sam3d import enlarge
from sam3d_label.weights.reference import load_reference

TOLERANCE = 1e-4
PROMPTS = ("one", "three", "edge")
Golden = dict[str, Tensor]


@pytest.fixture(scope="module")
def golden(reference_files: Path) -> Golden:
    """The file's arrays."""
    with np.load(reference_files / "reference_small.npz") as arrays:
        return {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}


@pytest.fixture(scope="module")
def network(reference_files: Path) -> SAM3D:
    """The authors' checkpoint in this network."""
    return load_reference(reference_files / "reference_small.pth.tar", prompt_heads=4).eval()


@pytest.fixture(scope="module")
def embedding(network: SAM3D, golden: Golden) -> Embedding:
    """The volume, encoded once for all prompts."""
    with torch.inference_mode():
        return network.encode(golden["volume"][None, None])


def close(found: Tensor, expected: Tensor) -> None:
    """Assert equality within the tolerance of the project."""
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def prompt(golden: Golden, name: str) -> dict[str, Any]:
    """Clicks of a prompt, all positive, for a batch of one."""
    points = golden[f"points_{name}"][None]
    return {"points": points, "signs": torch.ones(points.shape[:2], dtype=torch.long)}


def test_the_four_maps(network: SAM3D, golden: Golden) -> None:
    with torch.inference_mode():
        maps = network.image_encoder(golden["volume"].permute(1, 2, 0)[None, None])
    for index, found in enumerate(maps):
        close(found[0, :, ::4, ::4, ::4], golden[f"feature_{index}"])


def test_the_prompted_map(network: SAM3D, embedding: Embedding, golden: Golden) -> None:
    clicks = prompt(golden, "one")
    boxes = torch.empty(1, 0, 2, 3)
    with torch.inference_mode():
        dense: Any = network.dense_prompt(**clicks, boxes=boxes, mask=None)
        found = network.prompt_encoder(embedding.feature, **clicks, boxes=boxes, dense=dense)
    close(found[0, :, ::4, ::4, ::4], golden["prompted_feature_3"])


@pytest.mark.parametrize("name", PROMPTS)
def test_the_logits_of_both_classes(network: SAM3D, embedding: Embedding, golden: Golden, name: str) -> None:
    with torch.inference_mode():
        logits = enlarge(network.class_logits(embedding, **prompt(golden, name)), network.config.crop)[0]
    close(logits[:, ::4, ::4, ::4], golden[f"logits_{name}"])
    close(logits[:, 64], golden[f"logits_{name}_slice64"])


@pytest.mark.parametrize("name", PROMPTS)
def test_the_logit_of_a_click(network: SAM3D, embedding: Embedding, golden: Golden, name: str) -> None:
    with torch.inference_mode():
        logit = network.decode(embedding, **prompt(golden, name))
    background, foreground = golden[f"logits_{name}_slice64"]
    close(logit[0, 0, 64], foreground - background)
