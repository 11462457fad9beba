"""Run one model on many images; a failed image is reported, and the others continue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import cycle
from pathlib import Path
from typing import TypedDict

import torch
from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from lib.datastores.studies import check_tag
from lib.infers.answer import AnswerParams, InferResult
from lib.infers.sam3d import resolve_device
from lib.requests import Batch, parse_batch

logger = logging.getLogger(__name__)

Infer = Callable[[dict[str, object], Datastore], InferResult]


class BatchAnswer(TypedDict, total=False):
    """The result for one image: label, tag and JSON part of the answer, or why there is none."""

    label: str
    tag: str
    params: AnswerParams
    error: str


class SafeBatch(BatchInferTask):
    """MONAI Label's batch, for machines with and without a GPU. Its log has a line per image: `2 of 9: ID: ...`."""

    def __call__(self, request: Mapping[str, object], datastore: Datastore, infer: Infer) -> dict[str, BatchAnswer]:
        """Process the images.

        Args:
            request: The keys of `lib.requests.Batch`, and what else `infer` is to have for each image.
            datastore: Datastore of the images and masks.
            infer: The app's `infer`, for one image.

        Returns:
            By image: the answer of `infer` without the file, which is saved; or `error`, the reason why there is none.

        Raises:
            Sam3dError: A value of the request is wrong.
        """
        batch, devices = check_batch(request)
        images = sorted(set(self.get_images({**request, "images": batch.images}, datastore)))
        images = images[: batch.max_batch_size or None]
        logger.info(f"{len(images)} images, masks go to the tag {batch.label_tag}; on {', '.join(devices)}")
        shared = {key: value for key, value in request.items() if key not in ("images", "session")}
        shared |= {"save_label": True, "label_tag": batch.label_tag}
        answers: dict[str, BatchAnswer] = {}
        with ThreadPoolExecutor(batch.max_workers or len(devices), "BATCH") as pool:
            running = {
                pool.submit(_one, {**shared, "image": image, "device": device}, datastore, infer): image
                for image, device in zip(images, cycle(devices), strict=False)
            }
            for number, done in enumerate(as_completed(running), start=1):
                image, answer = running[done], done.result()
                answers[image] = answer
                outcome = f"failed: {answer['error']}" if "error" in answer else f"saved as {batch.label_tag}"
                logger.info("%d of %d: %s: %s", number, len(images), image, outcome)
        failed = [image for image, answer in answers.items() if "error" in answer]
        logger.info("Batch done: %d saved, %d failed %s", len(images) - len(failed), len(failed), ", ".join(failed))
        return {image: answers[image] for image in images}


def check_batch(request: Mapping[str, object]) -> tuple[Batch, list[str]]:
    """Return the parsed request, and the devices for it.

    Raises:
        Sam3dError: A value of the request is wrong.
    """
    batch = parse_batch(request)
    check_tag(batch.label_tag)
    return batch, devices_of(batch)


def devices_of(batch: Batch) -> list[str]:
    """Return the names of the torch devices that share a batch: every requested GPU, or the one device.

    Raises:
        PromptError: There is no such device here.
    """
    if not (batch.multi_gpu and torch.cuda.is_available() and batch.device in (None, "cuda")):
        return [resolve_device(batch.device)]
    every = range(torch.cuda.device_count())
    numbers = every if batch.gpus in ("", "all") else [number.strip() for number in batch.gpus.split(",")]
    return [resolve_device(f"cuda:{number}") for number in numbers]


def _one(request: dict[str, object], datastore: Datastore, infer: Infer) -> BatchAnswer:
    try:
        answer = infer(request, datastore)
    except HTTPException as error:
        return {"error": str(error.detail)}
    except Exception as error:
        logger.exception("%s failed", request["image"])
        return {"error": f"{type(error).__name__}: {error}"}
    Path(answer["file"]).unlink(missing_ok=True)
    return {"label": answer["label"], "tag": answer["tag"], "params": answer["params"]}
