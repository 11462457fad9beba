"""Repeat one request: its prompts on its image, compared with the saved label and with the original mask."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam3d_label.cache import LruCache
from sam3d_label.errors import Sam3dError, VolumeError, WeightsError
from sam3d_label.evaluation import metrics
from sam3d_label.image.labels import open_label, structures
from sam3d_label.image.volume import Volume
from sam3d_label.io import Record
from sam3d_label.masks import dice
from sam3d_label.model_update.versions import Versions
from sam3d_label.replay.jobs import NumberedRequest, ReplayJob
from sam3d_label.segmentation.prompts import Prompts, clip_boxes
from sam3d_label.segmentation.segmenter import Result, Segmenter
from sam3d_label.studies.click_log import LoggedRequest
from sam3d_label.studies.folder import FINAL, Studies, StudiesListing
from sam3d_label.studies.label_names import name_values
from sam3d_label.weights import Card, Weights, open_weights, shipped
from sam3d_label.weights.locations import CARD, SHIPPED

FROM_CLICKS, UNPROMPTED = "sam3d", "sam3d_auto"
"""The app's models."""

CACHE_BYTES = 512 * 2**20
GAP = "other than it was served"
"""Note if the original version gives another mask here: the image was replaced, or another machine rounds it so."""


class ReplayRow(Record):
    """The result of one request.

    Attributes:
        number: Its place in the log, from 1.
        at: When it was made.
        image: Id of its image.
        model: Which model it was for.
        label: Which label it was for.
        inside: How many clicks were inside.
        outside: How many were outside.
        boxes: How many boxes there were.
        served_version: Version of the weights that answered it.
        served_voxels: Voxels of the original mask.
        served_seconds: Time to the original answer.
        version: Version of the weights that it was replayed with; None when there was no answer.
        voxels: Voxels of the mask.
        seconds: Time to compute it on an open volume.
        dice: Overlap with the saved label; None if that cannot be compared.
        nsd_2mm: Surface agreement with it at 2 mm.
        nsd_5mm: Surface agreement at 5 mm.
        honoured: Number of its clicked voxels on which the mask agrees with the click.
        same_mask: Whether the mask is equal to the original one; None without an original mask.
        agreement: Dice with the mask of the original version; None when that is not available.
        note: Why something could not be compared.
        skipped: Why it could not be replayed.
    """

    number: int
    at: str
    image: str | None
    model: str | None
    label: str | None
    inside: int
    outside: int
    boxes: int
    served_version: str | None
    served_voxels: int | None
    served_seconds: float
    version: str | None = None
    voxels: int | None = None
    seconds: float | None = None
    dice: float | None = None
    nsd_2mm: float | None = None
    nsd_5mm: float | None = None
    honoured: int | None = None
    same_mask: bool | None = None
    agreement: float | None = None
    note: str | None = None
    skipped: str | None = None


@dataclass(frozen=True)
class ReplayData:
    """The images and labels of a replay.

    Attributes:
        studies: Images and labels.
        tag: Tag of the labels that count as the truth.
        labels: Names of what the app segmented, for labels that were saved without names.
        model_dir: Model folder with the original versions; None not to compare with them.
    """

    studies: Path
    tag: str = FINAL
    labels: tuple[str, ...] = ()
    model_dir: Path | None = None


class Replayer:
    """Replays requests with some weights.

    Args:
        weights: The weights, on the device that is to do the work.
        data: Images, labels and original versions.

    Raises:
        Sam3dError: The studies cannot be read.
    """

    def __init__(self, weights: Weights, data: ReplayData) -> None:
        self._weights, self._cohort = weights, data
        self._studies = Studies(data.studies)
        self._listing = self._studies.read()
        self._originals = OriginalWeights(data.model_dir, weights) if data.model_dir else None

    def rows(self, job: ReplayJob) -> Iterator[ReplayRow]:
        """Yield a row for each request of a job, as soon as it is known."""
        opened: _Image | Sam3dError | None = None
        for one in job.requests:
            reason = skip_reason(one.request, self._listing)
            if reason is None:
                opened = opened or self._open(str(job.image))
                reason = str(opened) if isinstance(opened, Sam3dError) else None
            if reason is not None or not isinstance(opened, _Image):
                yield _row(one, skipped=reason)
                continue
            yield self._replay(one, opened)

    def _open(self, image: str) -> _Image | Sam3dError:
        path = self._studies.image_file(self._listing, image)
        try:
            volume = Volume.open(path)
        except Sam3dError as error:
            return VolumeError(str(error).replace(str(path), path.name))
        return _Image(volume, LruCache(CACHE_BYTES), self._truth(image, volume))

    def _truth(self, image: str, volume: Volume) -> _Truth:
        labels = self._listing.objects[image].labels
        if self._cohort.tag not in labels:
            return _Truth({}, None, f"the image has no label under {self._cohort.tag}")
        path = self._studies.label_file(self._listing, image, self._cohort.tag)
        try:
            label = open_label(path)
            volume.require_same_grid(label)
            values = structures(label)
            names = name_values(values, labels[self._cohort.tag].info, self._cohort.labels)
        except VolumeError as error:
            return _Truth({}, None, f"its label cannot be used: {str(error).replace(str(path), path.name)}")
        return _Truth(names, label, None)

    def _replay(self, one: NumberedRequest, image: _Image) -> ReplayRow:
        request = one.request
        segmenter = Segmenter(image.volume, self._weights, cache=image.cache)
        began = time.perf_counter()
        try:
            prompts, result = _segment(segmenter, request)
        except Sam3dError as error:
            return _row(one, skipped=str(error))
        seconds = time.perf_counter() - began
        mask = result.mask > 0
        truth, note = image.truth.of(request.label)
        without_ignored = mask if truth is None else image.truth.without_ignored(mask)
        surfaces = (
            metrics.nsd(without_ignored, truth, image.volume.spacing.tolist()) if truth is not None else (None, None)
        )
        same = None if request.mask is None else request.mask == result.digest
        agreement, odd = self._agreement(request, image, mask) if same is False else (1.0 if same else None, None)
        return _row(
            one,
            version=self._weights.version,
            voxels=result.voxels,
            seconds=round(seconds, 4),
            dice=None if truth is None else dice(without_ignored, truth),
            nsd_2mm=surfaces[0],
            nsd_5mm=surfaces[1],
            honoured=metrics.count_honoured(mask, prompts.clicks),
            same_mask=same,
            agreement=agreement,
            note="; ".join(filter(None, (note, odd))) or None,
        )

    def _agreement(
        self, request: LoggedRequest, image: _Image, mask: NDArray[np.bool_]
    ) -> tuple[float | None, str | None]:
        """Return Dice with the recomputed mask of the original version, and a note if that mask has changed."""
        weights = self._originals.weights(request.version) if self._originals and request.version else None
        if weights is None:
            return None, None
        try:
            _, served = _segment(Segmenter(image.volume, weights, cache=image.cache), request)
        except Sam3dError as error:
            return None, f"{GAP}: {error}"
        odd = None if served.digest == request.mask else f"version {request.version} gives a mask {GAP}"
        return dice(mask, served.mask > 0), odd


class OriginalWeights:
    """The weights of the original versions, as far as they are available.

    Args:
        model_dir: Folder of the app.
        current: Weights that are open already.
    """

    def __init__(self, model_dir: Path, current: Weights) -> None:
        self._versions = Versions(model_dir / "versions")
        self._device = str(next(current.model.parameters()).device)
        self._open: dict[str, Weights | None] = {current.version: current}

    def weights(self, version: str) -> Weights | None:
        """Return the weights of a version; None if they are not available. Two are open at a time."""
        if version not in self._open:
            while len(self._open) > 1:
                self._open.pop(next(reversed(self._open)))
            self._open[version] = self._find(version)
        return self._open[version]

    def _find(self, version: str) -> Weights | None:
        try:
            if version in self._versions.names():
                return open_weights(self._versions.path(version), self._device)
            names = [name for name in shipped() if Card.read(SHIPPED / name / CARD).version == version]
            return open_weights(names[0], self._device) if names else None
        except WeightsError:
            return None


def skip_reason(request: LoggedRequest, listing: StudiesListing) -> str | None:
    """Return why a request cannot be replayed on some studies; None when it can be tried."""
    if request.image is None:
        return "there was no such image"
    if request.model not in (FROM_CLICKS, UNPROMPTED):
        return "there was no such model" if request.model is None else f"the model {request.model} is not known here"
    if request.prompts is None:
        return "its prompts could not be read"
    if request.result != "mask":
        return f"it asked for {request.result}, not for a mask"
    if request.image in listing.objects:
        return None
    return "the image of a session is not kept" if request.of_session else "the studies hold no such image"


@dataclass(frozen=True)
class _Truth:
    """The saved label of an image: the names of its values, the label, or the reason why there is none."""

    names: dict[int, str]
    label: Volume | None
    why: str | None

    def of(self, name: str | None) -> tuple[NDArray[np.bool_] | None, str | None]:
        """Return the target of a name, bool (I, J, K), or why it is not known."""
        if self.label is None:
            return None, self.why
        if name is None:
            return None, "it was for a label that the app did not have"
        values = [value for value, called in self.names.items() if called == name]
        return (np.isin(self.label.array, values), None) if values else (None, f"no {name} is drawn on the image")

    def without_ignored(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a mask without the voxels that the label says to ignore."""
        return mask if self.label is None else mask & (self.label.array >= 0)


@dataclass(frozen=True)
class _Image:
    volume: Volume
    cache: LruCache
    truth: _Truth


def _segment(segmenter: Segmenter, request: LoggedRequest) -> tuple[Prompts, Result]:
    """Return the result of the app's model for a request, and the prompts that it uses."""
    if request.model == UNPROMPTED or request.prompts is None:
        return Prompts(), segmenter.segment_unprompted()
    prompts = clip_boxes(request.prompts.prompts(request.version), segmenter.volume.shape)
    return prompts, segmenter.segment(prompts)


def _row(one: NumberedRequest, **found: object) -> ReplayRow:
    request, drawn = one.request, one.request.prompts
    original = {
        "number": one.number,
        "at": request.at,
        "image": request.image,
        "model": request.model,
        "label": request.label,
        "inside": len(drawn.inside) if drawn else 0,
        "outside": len(drawn.outside) if drawn else 0,
        "boxes": len(drawn.boxes) if drawn else 0,
        "served_version": request.version,
        "served_voxels": request.voxels,
        "served_seconds": request.seconds,
    }
    return ReplayRow.model_validate({**original, **found})


def only_label(requests: Sequence[LoggedRequest]) -> tuple[str, ...]:
    """Return the label that all requests of a log were for, to name labels that were saved without names; else none."""
    named = sorted({request.label for request in requests if request.label})
    return tuple(named) if len(named) == 1 else ()
