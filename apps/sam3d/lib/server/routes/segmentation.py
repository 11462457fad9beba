"""`/datastore/segmentation`: a saved label in the form that OHIF paints, or cropped as the page reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from fastapi import APIRouter, HTTPException
from fastapi.responses import Response
from monailabel.interfaces.datastore import Datastore
from nrrd import write as write_nrrd

from lib.datastores.dicomweb import DicomWebDatastore
from lib.datastores.metadata import FINAL
from lib.infers.sam3d import crop_to_content
from lib.server.routes.app_protocol import App
from lib.server.routes.form_routes import reading_route
from lib.server.routes.infer import FormResponse
from lib.temporary import new_answer
from sam3d_label.errors import VolumeError
from sam3d_label.image.labels import open_label, structures
from sam3d_label.image.volume import LPS_FROM_RAS, Volume, save_mask
from sam3d_label.studies.label_names import name_values

LARGEST = 255
"""Largest value of a voxel: OHIF's label maps have 8 bits."""


def router(app: App) -> APIRouter:
    """Return the route.

    Args:
        app: Has the datastore.
    """
    routes = APIRouter(prefix="/datastore", tags=["Datastore"], route_class=reading_route(app.readers))

    @routes.get("/segmentation", summary="A saved label as NRRD with the names of its segments")
    def segmentation(image: str, series: str | None = None, result_crop: bool = False) -> Response:
        """Return all voxels as NRRD; with `result_crop` a form as of `/infer`, with a .nii.gz of the box that has any.

        The form's `params` have `label_names`, the value of each label, `crop_box`, and `shape` and `affine` of the
        whole label: a label that another program put into the studies folder may have another grid than its image.
        """
        store = app.datastore()
        found = read_series(store, image, series) if series else read_final(store, image, app.config.labels)
        if found is None:
            return Response(status_code=204)
        if result_crop:
            return cropped_form(*found)
        return Response(nrrd(*found), media_type="application/octet-stream")

    return routes


def read_final(store: Datastore, image: str, labels: Sequence[str]) -> tuple[Volume, dict[int, str]] | None:
    """Return the final label of an image and the names of its values; None when it has none.

    Raises:
        HTTPException: 404; there is no such image.
        VolumeError: The label cannot be read, or its values have no names.
    """
    if image not in store.list_images():
        raise HTTPException(404, f"There is no image {image[:200]!r} in the datastore")
    file = store.get_label_uri(image, FINAL)
    if not file:
        return None
    label = open_label(file)
    return label, name_values(structures(label), store.get_label_info(image, FINAL), labels)


def read_series(store: Datastore, image: str, series: str) -> tuple[Volume, dict[int, str]]:
    """Return any DICOM SEG of an image, such as an earlier one, and the names of its segments.

    Raises:
        HTTPException: 404; the image has no such DICOM SEG. 400; the images are not on a DICOM server.
        VolumeError: It cannot be read, or was drawn on another grid.
    """
    if not isinstance(store, DicomWebDatastore):
        raise HTTPException(400, "series: only images of a DICOM server have DICOM SEGs, leave it out")
    found = store.read_segmentation(image, series)
    if found is None:
        raise HTTPException(404, f"Image {image[:200]!r} has no DICOM SEG {series[:200]!r}")
    return found


def cropped_form(label: Volume, names: Mapping[int, str]) -> FormResponse:
    """Return a label map as a form: `params`, and a .nii.gz of the box of its voxels, one byte each.

    Raises:
        VolumeError: A value does not fit into a byte.
    """
    array, volume, box = crop_to_content(_bytes(label), label)
    file = new_answer(".nii.gz")
    save_mask(file, array, volume)
    grid = {"shape": list(label.shape), "affine": label.affine.tolist()}
    return FormResponse(file, {"label_names": {name: value for value, name in names.items()}, "crop_box": box, **grid})


def nrrd(label: Volume, names: Mapping[int, str]) -> bytes:
    """Write a label map as NRRD, one byte per voxel, i fastest.

    Slicer's keys `SegmentN_Name` and `SegmentN_LabelValue` name the segments. A name is a JSON string without quotes,
    so that it takes one line.

    Args:
        label: Whole numbers; negative ones, which mean "ignore", become background.
        names: Of its values.

    Raises:
        VolumeError: A value does not fit into a byte.
    """
    voxels = _bytes(label)
    geometry = LPS_FROM_RAS @ label.affine
    header: dict[str, object] = {
        "space": "left-posterior-superior",
        "space directions": geometry[:3, :3].T,
        "space origin": geometry[:3, 3],
        "kinds": ["domain"] * 3,
        "encoding": "raw",
    }
    for number, (value, name) in enumerate(sorted(names.items())):
        header[f"Segment{number}_Name"] = json.dumps(name)[1:-1]
        header[f"Segment{number}_LabelValue"] = value
    file = BytesIO()
    write_nrrd(file, voxels, header)
    return file.getvalue()


def _bytes(label: Volume) -> np.ndarray:
    """Return a label map with one byte per voxel; negative values, which mean "ignore", become background."""
    if label.array.max() > LARGEST:
        raise VolumeError(f"the label has values up to {int(label.array.max())}, and viewers show them up to {LARGEST}")
    return np.maximum(label.array, 0).astype(np.uint8)
