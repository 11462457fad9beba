"""Score a volume without a label: the model's uncertainty, and a feature vector of the volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sam3d_label.io import Record
from sam3d_label.masks import deepest_voxel, largest_component
from sam3d_label.segmentation.prompts import Click, Ijk
from sam3d_label.segmentation.segmenter import Segmenter

NO_CLICK = "no_click"


@dataclass(frozen=True)
class VolumeScore:
    """The score of a volume.

    Attributes:
        doubt: Uncertainty: share of the possible target on which masks of perturbed clicks disagree, 0 to 1.
        click: Where the model itself would click, voxel i, j, k.
        vector: Mean and deviation of each channel of the deepest feature map, float32 (2 · channels,).
        model_version: Version of the weights.
    """

    doubt: float
    click: Ijk
    vector: np.ndarray
    model_version: str


class ImageScore(BaseModel):
    """A `VolumeScore` as it is stored.

    Attributes:
        version: Version of the weights.
        doubt: As of `VolumeScore`.
        click: As of `VolumeScore`.
        vector: As of `VolumeScore`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    version: str
    doubt: float = Field(allow_inf_nan=False)
    click: tuple[int, int, int]
    vector: list[Annotated[float, Field(allow_inf_nan=False)]]

    @classmethod
    def of(cls, found: VolumeScore) -> ImageScore:
        """Round a score for storage."""
        i, j, k = (int(index) for index in found.click)
        vector = [round(float(value), 5) for value in found.vector]
        return cls(version=found.model_version, doubt=round(found.doubt, 4), click=(i, j, k), vector=vector)


class ImageScores(Record):
    """The scores of the images of an app, as they are stored: each is checked when it is used.

    Attributes:
        scores: The scores by image.
    """

    scores: dict[str, object] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_release(cls, content: object) -> object:
        """Accept the scores alone."""
        if isinstance(content, dict) and "scores" not in content:
            return {"scores": {image: score for image, score in content.items() if image != "format"}}
        return content


def score_volume(segmenter: Segmenter) -> VolumeScore:
    """Segment a volume without a prompt, click on the result, and measure the uncertainty of that click's mask.

    Weights that have not learned to work without a prompt click in the middle of the volume.

    Raises:
        PromptError: The weights have not learned clicks.
    """
    click = likely_target(segmenter)
    result = segmenter.segment([click])
    unsure = segmenter.uncertainty([click]).map
    possible = np.maximum(unsure, result.probability)
    doubt = float(unsure.sum() / max(float(possible.sum()), 1e-6))
    return VolumeScore(doubt, click.ijk, segmenter.feature_vector(), segmenter.weights.version)


def likely_target(segmenter: Segmenter) -> Click:
    """Place a click in the deepest voxel of the mask's largest component or, if empty, at the highest probability."""
    if NO_CLICK not in segmenter.weights.card.capabilities:
        i, j, k = (size // 2 for size in segmenter.volume.shape)
        return Click((i, j, k))
    result = segmenter.segment_unprompted()
    deepest = deepest_voxel(largest_component(result.mask), segmenter.volume.spacing)
    return Click(deepest or _index(int(np.argmax(result.probability)), result.mask.shape))


def farthest_vector(vectors: dict[str, np.ndarray], known: list[np.ndarray]) -> tuple[str, float]:
    """Choose the vector that is farthest from its nearest known one or, with nothing known, the most typical one.

    Each component is divided by its standard deviation over all vectors first.

    Returns:
        Its name and its distance.
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
