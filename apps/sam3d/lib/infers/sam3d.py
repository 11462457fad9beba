"""Segment a volume for a request, and write the mask file."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.utils.others.generic import device_list, name_to_device

from lib.configs.active_weights import unprompted_label
from lib.infers.answer import AnswerParams, CandidateParams
from lib.infers.open_volumes import Segmenters, file_key
from lib.infers.unprompted import SearchProgress, UnpromptedMasks
from lib.requests import NO_CLICKS, OutputForm, parse, parse_unprompted
from lib.temporary import new_answer
from sam3d_label import Segmenter
from sam3d_label.errors import PromptError, Sam3dError
from sam3d_label.image.volume import Volume, save_mask
from sam3d_label.masks import bounding_box
from sam3d_label.segmentation.prompts import clip_boxes
from sam3d_label.segmentation.segmenter import Candidate, Result
from sam3d_label.training.busy import BusySign
from sam3d_label.weights.card import Card

EXTENSIONS = (".nii.gz", ".nii", ".nrrd")
NO_CLICK = "no_click"
IGNORED_CANDIDATE = (
    "The chosen candidate belongs to other weights than the active version, so it was not used: only the clicks and"
    " boxes count."
)


class VolumeTask(InferTask):
    """Base of the models: they open a volume, segment it, and write the mask.

    A mask depends only on the volume, the weights and the prompts of the request.

    Args:
        segmenters: The recently opened volumes, shared by the models.
        busy: Flag that a training on this machine waits for.
        labels: Names of the structures to segment.
        kind: Type of the model, which decides where the viewers list it.
        description: Description for people.
    """

    def __init__(
        self, segmenters: Segmenters, busy: BusySign, labels: Sequence[str], kind: str, description: str
    ) -> None:
        super().__init__(
            type=kind,
            labels=list(labels),
            dimension=3,
            description=description,
            config={"device": device_list()},
        )
        self._segmenters, self._busy = segmenters, busy

    @abstractmethod
    def __call__(self, request: Mapping[str, object]) -> tuple[str, AnswerParams]:
        """Answer a request.

        Args:
            request: `image`, the path of a file or DICOM folder, and the keys of `lib.requests`.

        Returns:
            Path of a temporary file on the stored grid and geometry of the image; and the JSON part of the answer.

        Raises:
            Sam3dError: The request, the volume or the prompts are wrong; the message says how to fix it.
        """

    @abstractmethod
    def require_unprompted(self) -> None:
        """Check that the model can process a batch of images without prompts.

        Raises:
            PromptError: It cannot; the message says what can.
        """

    def progress(self, image: str) -> SearchProgress | None:
        """Return how far the model is with an image, by id or session; None when it is not at work or fast."""
        return None

    def is_valid(self) -> bool:
        """Return whether `/info/` lists the model: once there are weights that have learned clicks."""
        try:
            self._segmenters.weights(resolve_device(None))
        except Sam3dError:
            return False
        return True

    def get_path(self, validate: bool = True) -> None:
        """Offer no file to the routes under `/model/`, which would overwrite or move shipped weights.

        Raises:
            HTTPException: 400; a client asks where to put a file (`validate` is False).
        """
        if not validate:
            raise HTTPException(400, "Weights are not taken over HTTP: start the server with --conf weights PATH")

    def clear_cache(self) -> None:
        """Remove all embeddings from the cache."""
        self._segmenters.cache.clear()

    def _respond(
        self,
        request: Mapping[str, object],
        output: OutputForm,
        find: Callable[[Segmenter], tuple[np.ndarray, AnswerParams]],
    ) -> tuple[str, AnswerParams]:
        """Return the result file and its JSON; `find` returns an array (I, J, K) on the stored grid and JSON fields."""
        clock = _Clock()
        path = str(request["image"])
        with self._busy.show(), self._segmenters.borrow(path, resolve_device(output.device)) as segmenter:
            clock.lap("pre")
            array, found = find(segmenter)
            clock.lap("infer")
            volume = segmenter.volume
            if output.crop:
                array, volume, found["crop_box"] = crop_to_content(array, volume)
            file = write_result(array, volume, output, path)
            found["modality"] = segmenter.normalization.modality
            found["modality_from"] = segmenter.normalization.source
        clock.lap("write")
        return file, {"label_names": {output.label: output.value}, "latencies": clock.seconds(), **found}


class SAM3DInferTask(VolumeTask):
    """The model that works from clicks: `deepgrow` to the viewers."""

    def __init__(self, segmenters: Segmenters, busy: BusySign, labels: Sequence[str]) -> None:
        super().__init__(segmenters, busy, labels, InferType.DEEPGROW, "Segments what the clicks mark, in 3D")

    def __call__(self, request: Mapping[str, object]) -> tuple[str, AnswerParams]:
        """Segment the target of the prompts: 1 in the target, 0 elsewhere.

        With `result` = `uncertainty` the file is the uncertainty of that mask, float32 from 0 to 1, and the JSON has
        the voxel where the next click helps most: `next_click`, [i, j, k] or null. With `candidates` each mask is one
        bit of the file (`candidates` in the JSON has its value), since masks overlap.
        """
        prompts, output = parse(request, labels=self.labels)

        def find(segmenter: Segmenter) -> tuple[np.ndarray, AnswerParams]:
            clipped = clip_boxes(prompts, segmenter.volume.shape).for_weights(segmenter.weights.version)
            given: AnswerParams = {
                "clicks": {"positive": len(prompts.positive), "negative": len(prompts.negative)},
                "boxes": len(prompts.boxes),
            }
            if prompts.chosen and not clipped.chosen:
                given["ignored_candidate"] = IGNORED_CANDIDATE
            if output.result == "mask":
                result = segmenter.segment(clipped)
                return result.mask, {**_describe(result), **given}
            if output.result == "candidates":
                return overlay_candidates(segmenter.candidates(clipped), given)
            unsure = segmenter.uncertainty(clipped)
            voxel = None if unsure.next_click is None else [int(index) for index in unsure.next_click]
            return unsure.map, {"model_version": str(unsure.model_version), "next_click": voxel, **given}

        return self._respond(request, output, find)

    def require_unprompted(self) -> None:
        """Raise `PromptError`, since the model needs clicks."""
        raise PromptError(NO_CLICKS)


class SAM3DAutoTask(VolumeTask):
    """The model that works without clicks: `segmentation` to the viewers.

    It finds one kind of target, which is one of the labels; a request for another is rejected.
    """

    def __init__(self, segmenters: Segmenters, busy: BusySign, labels: Sequence[str]) -> None:
        description = "Segments the whole volume without a click, in 3D"
        super().__init__(segmenters, busy, labels, InferType.SEGMENTATION, description)
        self._masks = UnpromptedMasks(segmenters.cache)

    def __call__(self, request: Mapping[str, object]) -> tuple[str, AnswerParams]:
        """Segment all targets of the volume; `label_names` has their value."""
        self.require_unprompted()
        output = parse_unprompted(request, labels=self.labels, found=self.target_label())

        volume = (file_key(str(request["image"])), resolve_device(output.device))

        def find(segmenter: Segmenter) -> tuple[np.ndarray, AnswerParams]:
            with self._masks.show_progress(str(request.get("image_id", ""))) as progress:

                def compute() -> tuple[np.ndarray, AnswerParams]:
                    result = segmenter.segment_unprompted(progress)
                    return result.mask, _describe(result)

                mask, described, cached = self._masks.get((volume, segmenter.weights.signature), compute)
            described["cached"] = cached
            if cached:
                described["encoded"] = 0
            return mask * np.uint8(output.value), described

        return self._respond(request, output, find)

    def progress(self, image: str) -> SearchProgress | None:
        """Return how far the search in an image is."""
        return self._masks.progress(image)

    def info(self) -> dict[str, object]:
        """Describe the model; `unprompted_label` is the label that it finds, None when its weights need clicks."""
        known = self._card().capabilities
        return {**super().info(), "unprompted_label": self.target_label() if NO_CLICK in known else None}

    def _card(self) -> Card:
        return self._segmenters.weights(resolve_device(None)).card

    def target_label(self) -> str:
        """Return the label that the model segments: the first that the weights know by name, otherwise the first."""
        return unprompted_label(self.labels, self._card())

    def require_unprompted(self) -> None:
        """Raise `PromptError` if the weights have not learned it."""
        weights = self._segmenters.weights(resolve_device(None))
        known = weights.card.capabilities
        if NO_CLICK not in known:
            raise PromptError(
                f"The weights {weights.version} have not learned to segment without a click, only: {', '.join(known)}."
                " Place a point inside the lesion (Point Prompts), or start the server with --conf weights PATH of"
                " weights that have learned it"
            )


def overlay_candidates(candidates: Sequence[Candidate], given: AnswerParams) -> tuple[np.ndarray, AnswerParams]:
    """Return candidates as the bits of one array, the best first, and the JSON part of the response."""
    masks = np.zeros_like(candidates[0].result.mask)
    described: list[CandidateParams] = []
    for number, candidate in enumerate(candidates):
        masks |= candidate.result.mask << number
        described.append(
            {
                "value": 1 << number,
                "predicted_dice": round(candidate.predicted_dice, 4),
                "voxels": candidate.result.voxels,
            }
        )
    return masks, {"model_version": candidates[0].result.model_version, "candidates": described, **given}


def crop_to_content(array: np.ndarray, volume: Volume) -> tuple[np.ndarray, Volume, list[int] | None]:
    """Crop an array (I, J, K) and its volume to the box of the voxels that are not 0.

    The box has at least two voxels along each axis, as every volume has.

    Returns:
        The cropped array; the volume, at the same place; the box i0, i1, j0, j1, k0, k1, which is None and the crop
        that of the first voxels if all voxels are 0.
    """
    box = bounding_box(array)
    content = box or (slice(0, 1),) * 3
    starts = [min(along.start, size - 2) for along, size in zip(content, array.shape, strict=True)]
    i, j, k = (slice(start, max(along.stop, start + 2)) for start, along in zip(starts, content, strict=True))
    edges = [edge for along in (i, j, k) for edge in (along.start, along.stop)]
    return array[i, j, k], volume.cropped((i, j, k)), edges if box else None


def _describe(result: Result) -> AnswerParams:
    return {
        "encoded": int(result.encoded),
        "model_version": str(result.model_version),
        "changed_box": None if result.changed_box is None else [int(edge) for edge in result.changed_box],
        "mask_digest": result.digest,
        "voxels": result.voxels,
    }


class _Clock:
    """Seconds of each step of a request, and of all."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name], self._last = now - self._last, now

    def seconds(self) -> dict[str, float]:
        return {name: round(lap, 4) for name, lap in {**self._laps, "total": self._last - self._start}.items()}


def resolve_device(name: str | None) -> str:
    """Return the torch device that a client means.

    Not the check of the command line, which takes any torch name and has no fallback: here names and the fallback to
    the CPU are those of MONAI Label.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, or a GPU's marketing name as `/info/` lists it; None = a GPU if there
            is one. On a server without a GPU every `cuda` name means the CPU, as MONAI Label has it.

    Returns:
        A name that torch knows and this server has.

    Raises:
        PromptError: There is no such device here.
    """
    try:
        device = torch.device(name_to_device(name))
    except RuntimeError:
        device = None
    count = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(device.type, 0) if device else 0
    if device is None or (device.index or 0) >= count:
        raise PromptError(f"device: there is no {name!r} here, only {', '.join(['cpu', *_gpus()])}")
    return str(device)


def _gpus() -> list[str]:
    return [name for name in device_list() if name != "cpu"]


def write_result(array: np.ndarray, volume: Volume, output: OutputForm, image: str) -> str:
    """Write a mask or a map to a temporary file, which the server deletes once it is sent.

    Args:
        array: (I, J, K).
        volume: The volume whose grid and geometry the file gets.
        output: Suffix, type and compression; without a suffix, that of the image if it can be written,
            else .nii.gz.
        image: Path of the image.

    Returns:
        Path of the file.
    """
    extension: str = output.extension or next((e for e in EXTENSIONS if image.endswith(e)), ".nii.gz")
    # OHIF reads the bytes of a gzip NRRD in pairs, and fails on an odd number.
    compress = output.compress and array.size % 2 == 0
    file = new_answer(extension)
    try:
        save_mask(file, array.astype(output.dtype, copy=False), volume, compress=compress)
    except BaseException:
        Path(file).unlink(missing_ok=True)
        raise
    return file
