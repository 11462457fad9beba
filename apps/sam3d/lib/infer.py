"""Clicks on a volume -> a mask file."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.utils.others.generic import device_list, name_to_device

from lib.requests import Output, clip_boxes, parse
from lib.volumes import OpenVolumes, file_key
from sam3d_label import Segmenter
from sam3d_label.cache import EmbeddingCache
from sam3d_label.errors import PromptError
from sam3d_label.volume import Volume, save_mask
from sam3d_label.weights import Weights

OPEN_VOLUMES_BYTES = 2**30
EXTENSIONS = (".nii.gz", ".nii", ".nrrd")


class SAM3DInferTask(InferTask):
    """The model that works from clicks: `deepgrow` to the viewers.

    A mask depends on the volume, the weights and the prompts of the request alone; what is kept between
    requests is the volumes opened lately and the embeddings of their crops.

    Args:
        weights: The weights on a device, which it keeps once they are loaded.
        labels: Names of what is segmented.
        cache_bytes: Budget of the embedding cache.
    """

    def __init__(self, weights: Callable[[str], Weights], labels: Sequence[str], cache_bytes: int) -> None:
        super().__init__(
            type=InferType.DEEPGROW,
            labels=list(labels),
            dimension=3,
            description="Segments what the clicks mark, in 3D",
            config={"device": device_list()},
        )
        self._weights = weights
        self._cache = EmbeddingCache(cache_bytes)
        self._volumes = OpenVolumes(OPEN_VOLUMES_BYTES)

    def is_valid(self) -> bool:
        """Whether `/info/` lists the model: always, for the app registers it only with trained weights."""
        return True

    def get_path(self, validate: bool = True) -> None:
        """No file for the routes under `/model/`: they would overwrite or move away shipped weights.

        Raises:
            HTTPException: 400; a client asks where to put a file (`validate` is False).
        """
        if not validate:
            raise HTTPException(400, "Weights are not taken over HTTP: start the server with --conf weights PATH")

    def clear_cache(self) -> None:
        """Forgets embeddings; the next click on each place encodes again."""
        self._cache.clear()

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segments the volume of a request.

        Args:
            request: `image`, the path of a file or DICOM folder, and the keys of `lib.requests`.

        Returns:
            Path of a temporary mask file, on the stored grid and geometry of the image, 1 in the target and 0
            elsewhere; and the JSON part of the answer.

        Raises:
            Sam3dError: The request, the volume or the prompts are wrong; the message says how to mend it.
        """
        clock = _Clock()
        prompts, output = parse(request, labels=self.labels)
        device = resolve_device(output.device)
        path = str(request["image"])
        with self._volumes.borrow((file_key(path), device), lambda: self._open(path, device)) as segmenter:
            prompts = clip_boxes(prompts, segmenter.volume.shape)
            clock.lap("pre")
            result = segmenter.segment(prompts)
            clock.lap("infer")
            file = write_mask(result.mask, segmenter.volume, output, path)
        clock.lap("write")
        return file, {
            "label_names": {output.label: 1},
            "latencies": clock.seconds(),
            "encoded": int(result.encoded),
            "model_version": str(result.model_version),
            "changed_box": None if result.changed_box is None else [int(edge) for edge in result.changed_box],
            "clicks": {"positive": len(prompts.positive), "negative": len(prompts.negative)},
            "boxes": len(prompts.boxes),
        }

    def _open(self, path: str, device: str) -> Segmenter:
        return Segmenter(Volume.open(path), self._weights(device), cache=self._cache)


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
    """The torch device that a client means.

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


def write_mask(mask: np.ndarray, volume: Volume, output: Output, image: str) -> str:
    """Writes a mask to a temporary file, which the server deletes once it is sent.

    Args:
        mask: uint8 (I, J, K).
        volume: The volume whose grid and geometry the file gets.
        output: Suffix, type and compression; without a suffix, that of the image if it can be written,
            else .nii.gz.
        image: Path of the image.

    Returns:
        Path of the file.
    """
    extension: str = output.extension or next((e for e in EXTENSIONS if image.endswith(e)), ".nii.gz")
    # OHIF reads the bytes of a gzip NRRD in pairs, and fails on an odd number.
    compress = output.compress and mask.size % 2 == 0
    descriptor, file = tempfile.mkstemp(suffix=extension)
    os.close(descriptor)
    try:
        save_mask(file, mask.astype(output.dtype, copy=False), volume, compress=compress)
    except BaseException:
        Path(file).unlink(missing_ok=True)
        raise
    return file
