"""The answer of a model as JSON."""

from __future__ import annotations

from typing import TypedDict


class Clicks(TypedDict):
    """Number of clicks of a request, inside and outside the target."""

    positive: int
    negative: int


class CandidateParams(TypedDict):
    """One of several masks.

    Attributes:
        value: Bit of the mask in the voxels of the file.
        predicted_dice: Its Dice as the network predicts it.
        voxels: Number of voxels in the mask.
    """

    value: int
    predicted_dice: float
    voxels: int


class AnswerParams(TypedDict, total=False):
    """The JSON part of an answer; which keys it has depends on the model and the request.

    Attributes:
        label_names: Value of each label in the mask.
        latencies: Seconds of each step.
        model_version: Version of the weights.
        changed_box: Voxels i0, i1, j0, j1, k0, k1 that the mask may mark; None for an empty mask.
        crop_box: Voxels i0, i1, j0, j1, k0, k1 of the image that a cropped file holds; None if all voxels are 0.
        mask_digest: Hash of the mask.
        voxels: Number of voxels in the mask.
        encoded: Number of crops that were encoded for it.
        cached: Whether the mask was kept from an earlier request.
        clicks: Number of clicks.
        boxes: Number of boxes.
        next_click: Voxel where the next click would help most.
        candidates: Masks that the prompts may mean, the best first.
        ignored_candidate: Why the chosen candidate was not used; missing if it was.
        modality: Modality of the image.
        modality_from: How the modality is known.
    """

    label_names: dict[str, int]
    latencies: dict[str, float]
    model_version: str
    changed_box: list[int] | None
    crop_box: list[int] | None
    mask_digest: str
    voxels: int
    encoded: int
    cached: bool
    clicks: Clicks
    boxes: int
    next_click: list[int] | None
    candidates: list[CandidateParams]
    ignored_candidate: str
    modality: str | None
    modality_from: str | None


class InferResult(TypedDict):
    """The result of a request to a model.

    Attributes:
        label: Path of the mask, or id of the saved label.
        tag: Tag of the saved label.
        file: Path of the mask.
        params: The JSON part of the answer.
    """

    label: str
    tag: str
    file: str
    params: AnswerParams
