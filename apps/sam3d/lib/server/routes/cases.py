"""`/sam3d/cases`: the images of the datastore as the page lists and opens them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Protocol

import nibabel as nib
import numpy as np
from fastapi import APIRouter
from fastapi.responses import FileResponse, Response, StreamingResponse
from monailabel.interfaces.datastore import Datastore

from lib.activelearning.strategies import ScoreFile
from lib.configs.active_weights import ActiveWeights, UntrainedError
from lib.infers.open_volumes import Segmenters
from lib.infers.sam3d import resolve_device
from lib.server.routes.form_routes import reading_route
from lib.server.routes.images import image_file
from lib.server.routes.volume_files import Name
from lib.server.user_shares import UserShares
from sam3d_label.image.intensity import Normalization
from sam3d_label.image.suffixes import NIFTI_SUFFIXES
from sam3d_label.image.volume import Volume

FASTEST = 1
"""Level of gzip: a volume of noise hardly becomes smaller with a higher one."""

GZIP = 16 + zlib.MAX_WBITS
"""The format of a gzip file, to zlib."""

IMAGE_START = 352
"""Bytes of a NIfTI file before its voxels: the header, and four that announce no extension."""

PERCENTILES = (0.5, 99.5)
"""Intensities that a first window shows, in percent of the voxels."""

MOST_SAMPLES = 1_000_000


class CasesApp(Protocol):
    """The parts of the app that these routes use."""

    readers: UserShares
    scores: ScoreFile
    segmenters: Segmenters
    serving: ActiveWeights

    def datastore(self) -> Datastore:
        """Return images and labels."""


def router(app: CasesApp) -> APIRouter:
    """Return the routes under `/sam3d/cases`.

    Args:
        app: Has the datastore and the open volumes.
    """
    routes = APIRouter(prefix="/sam3d/cases", tags=["SAM3D"], route_class=reading_route(app.readers))

    @routes.get("", summary="All images, and whether they have a final label")
    def cases() -> list[dict[str, object]]:
        return list_cases(app)

    @routes.get("/view", summary="Grid, modality and a first window of an image")
    def view(image: Name) -> dict[str, object]:
        store = app.datastore()
        file, study = image_file(store, image), store.get_image_info(image).get("StudyInstanceUID")
        volume, found = open_for_view(app, file)
        modality = {"modality": found.modality, "modality_from": found.source}
        return {"image": image, "study": study, **describe(volume), **modality}

    @routes.get("/volume", summary="An image as NIfTI, whatever its own format", response_class=Response)
    def volume(image: Name) -> Response:
        file = image_file(app.datastore(), image)
        if file.lower().endswith(NIFTI_SUFFIXES):
            return FileResponse(file, media_type="application/octet-stream")
        return StreamingResponse(nifti(Volume.open(file)), media_type="application/octet-stream")

    return routes


def open_for_view(app: CasesApp, file: str) -> tuple[Volume, Normalization]:
    """Open a volume with its intensity rule, for the first click too; weights need not have been trained for it."""
    try:
        segmenter = app.segmenters.view(file, resolve_device(None))
        return segmenter.volume, segmenter.normalization
    except UntrainedError:
        volume = Volume.open(file)
        return volume, app.serving.load().card.intensity.fit(volume.array, volume.modality)


def list_cases(app: CasesApp) -> list[dict[str, object]]:
    """Return every image by id.

    `labelled` is whether it has a final label, `doubt` the score of its uncertainty, and `title` modality, date and
    description of a series; the last two are null where there are none.
    """
    store, scores = app.datastore(), app.scores.read()
    unlabelled = set(store.get_unlabeled_images())
    objects = store.json().get("objects", {})
    return [
        {
            "image": image,
            "title": title(objects.get(image, {}).get("image", {}).get("info", {})),
            "labelled": image not in unlabelled,
            "doubt": scores[image].doubt if image in scores else None,
        }
        for image in sorted(store.list_images())
    ]


def title(info: Mapping[str, object]) -> str | None:
    """Return modality, date and description of a DICOM series for people; None for other images."""
    if "SeriesInstanceUID" not in info:
        return None
    known = [str(info.get(key) or "") for key in ("Modality", "StudyDate", "SeriesDescription")]
    return " · ".join(part for part in known if part) or None


def describe(volume: Volume) -> dict[str, object]:
    """Return the grid of a volume, and the intensities between which a first window shows it."""
    step = max(1, volume.array.size // MOST_SAMPLES)
    sample = volume.array.reshape(-1)[::step]
    low, high = np.percentile(sample, PERCENTILES)
    return {
        "shape": list(volume.shape),
        "spacing": [round(float(edge), 6) for edge in volume.spacing],
        "affine": volume.affine.tolist(),
        "window": [float(low), float(max(high, low + 1e-6))],
        "range": [float(volume.array.min()), float(volume.array.max())],
    }


def nifti(volume: Volume) -> Iterator[bytes]:
    """Yield the parts of a volume as .nii.gz, a slice at a time, in 16 bits where they hold its intensities."""
    array = volume.array
    limits = np.iinfo(np.int16)
    is_short = limits.min <= array.min() and array.max() <= limits.max and bool((array == np.rint(array)).all())
    array = array.astype(np.int16 if is_short else array.dtype, copy=False)
    image = nib.Nifti1Image(array, volume.affine)
    del volume  # a slow connection needs the array only
    image.header.set_slope_inter(1, 0)
    image.header["vox_offset"] = IMAGE_START
    packer = zlib.compressobj(FASTEST, wbits=GZIP)
    yield packer.compress(image.header.binaryblock.ljust(IMAGE_START, b"\0"))
    for number in range(array.shape[2]):
        yield packer.compress(array[:, :, number].tobytes("F"))
    yield packer.flush()
