"""What the model makes of a volume that nobody has clicked in: how unsure it is, and what the volume looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sam3d_label.masks import deepest_voxel, largest_component
from sam3d_label.segmentation.prompts import Click, Ijk
from sam3d_label.segmentation.segmenter import Segmenter

NO_CLICK = "no_click"


@dataclass(frozen=True)
class Survey:
    """A volume as the model sees it.

    Attributes:
        doubt: Share of what may be target on which masks under perturbed clicks disagree, 0 to 1.
        click: Where the model itself would click, voxel i, j, k.
        vector: Mean and deviation of each channel of the deepest feature map, float32 (2 · channels,).
        model_version: Version of the weights.
    """

    doubt: float
    click: Ijk
    vector: np.ndarray
    model_version: str


def survey(segmenter: Segmenter) -> Survey:
    """Look at a volume without a prompt, click where the target seems to be, and ask how sure the mask is.

    Weights that have not learned to work without a prompt click in the middle of the volume.

    Raises:
        PromptError: The weights have not learned clicks.
    """
    click = likely_target(segmenter)
    result = segmenter.segment([click])
    unsure = segmenter.uncertainty([click]).map
    possible = np.maximum(unsure, result.probability)
    doubt = float(unsure.sum() / max(float(possible.sum()), 1e-6))
    return Survey(doubt, click.ijk, segmenter.feature_vector(), segmenter.weights.version)


def likely_target(segmenter: Segmenter) -> Click:
    """A click in the deepest voxel of the largest part of the mask without a prompt; else where it is likeliest."""
    if NO_CLICK not in segmenter.weights.card.capabilities:
        i, j, k = (size // 2 for size in segmenter.volume.shape)
        return Click((i, j, k))
    result = segmenter.segment_unprompted()
    deepest = deepest_voxel(largest_component(result.mask), segmenter.volume.spacing)
    return Click(deepest or _index(int(np.argmax(result.probability)), result.mask.shape))


def farthest(vectors: dict[str, np.ndarray], known: list[np.ndarray]) -> tuple[str, float]:
    """Of some vectors by name, the one that is farthest from its nearest known one; with nothing known, the most usual.

    Distances are those of vectors divided by the deviation of each component over all of them.

    Returns:
        Its name, and its distance.
    """
    everything = np.stack([*vectors.values(), *known])
    scale = everything.std(0) + 1e-6
    names, candidates = list(vectors), np.stack(list(vectors.values())) / scale
    if not known:
        away = np.linalg.norm(candidates - candidates.mean(0), axis=1)
        best = int(away.argmin())
    else:
        away = np.linalg.norm(candidates[:, None] - np.stack(known)[None] / scale, axis=2).min(1)
        best = int(away.argmax())
    return names[best], float(away[best])


def _index(flat: int, shape: tuple[int, ...]) -> Ijk:
    i, j, k = (int(at) for at in np.unravel_index(flat, shape))
    return i, j, k
