"""A datastore whose images and labels are on a DICOMweb server, with a local folder as cache."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from fastapi import HTTPException
from monailabel.datastore.local import DataModel, ImageLabelModel
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from lib.datastores.dicom_client import UID, DicomWeb, Series
from lib.datastores.dicom_seg_list import NIFTI, SEGMENTATION, LabelSeg, SegInstance, SegList, seg_label
from lib.datastores.dicom_seg_read import read_seg, segment_names
from lib.datastores.dicom_seg_write import make_label_seg
from lib.datastores.dicom_series import keep_volume
from lib.datastores.metadata import FINAL
from lib.datastores.series_cache import SeriesCache
from lib.datastores.studies import EXTENSIONS, SafeDatastore
from lib.errors import RemoteError
from lib.temporary import is_temporary
from sam3d_label.errors import VolumeError
from sam3d_label.image.labels import as_label, open_label
from sam3d_label.image.volume import Volume

logger = logging.getLogger(__name__)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
RETRY_SECONDS = 10
"""Seconds until the next request to a server that did not respond."""

PATIENCE_SECONDS = 2
"""How long a request that needs the server's latest state waits for another that asks the server already."""

OUTSIDE = "Images are added and removed on the DICOM server: send the series there, or remove it there"


def _after_refresh(
    inherited: Callable[Concatenate[DicomWebDatastore, Parameters], Result],
) -> Callable[Concatenate[DicomWebDatastore, Parameters], Result]:
    """Return a method that first reads the list of the server."""

    @wraps(inherited)
    def method(self: DicomWebDatastore, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        self.synchronise()
        return inherited(self, *args, **kwargs)

    return method


class DicomWebDatastore(SafeDatastore):
    """Series of a DICOMweb server as images, under their SeriesInstanceUID, and its DICOM SEGs as their final labels.

    The list of series is requested again when the last answer is a few seconds old. Series and SEGs are downloaded on
    demand and kept. A final label is sent to the server as a SEG; labels of other tags stay in the folder.

    Args:
        server: The server.
        folder: Folder for downloads.
        modalities: Modalities whose series are images.
        labels: Names of the structures that the app segments.
        refresh: Seconds after which the server is asked again.
        filters: Further QIDO query attributes of images.
    """

    def __init__(
        self,
        server: DicomWeb,
        folder: Path,
        *,
        modalities: Sequence[str] = ("CT", "MR"),
        labels: Sequence[str] = (),
        refresh: float = 5,
        filters: Mapping[str, object] | None = None,
    ) -> None:
        self.server, self.modalities, self.labels = server, tuple(modalities), tuple(labels)
        self._refresh, self._filters = refresh, dict(filters or {})
        self._asking = threading.Lock()
        self._asked_at = float("-inf")
        self._stored = 0
        self._trouble: RemoteError | None = None
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._cache = SeriesCache(folder)
        self._segs = SegList(folder / ".sam3d" / "segmentations.json")
        super().__init__(str(folder), extensions=[f"*{extension}" for extension in EXTENSIONS], auto_reload=False)

    keeps_gone = False  # the server has them
    shares_folder = False  # it holds copies

    get_labeled_images = _after_refresh(SafeDatastore.get_labeled_images)
    list_images = _after_refresh(SafeDatastore.list_images)
    json = _after_refresh(SafeDatastore.json)

    def name(self) -> str:
        """Return the server's address."""
        return self.server.url

    def synchronise(self, at_least_every: float | None = None) -> None:
        """Read the list of the server, unless it is recent or another thread is reading it.

        Args:
            at_least_every: Seconds that a moment is; the configured ones without it.

        Raises:
            RemoteError: The server does not answer, now or a moment ago.
        """
        wait = RETRY_SECONDS if self._trouble else self._refresh if at_least_every is None else at_least_every
        patience = 0 if at_least_every is None else PATIENCE_SECONDS
        if time.monotonic() - self._asked_at >= wait and self._asking.acquire(timeout=patience):
            try:
                if time.monotonic() - self._asked_at >= wait:
                    self._ask()
            finally:
                self._asking.release()
        if self._trouble:
            raise self._trouble

    def _ask(self) -> None:
        """Request the list of series; other threads use the known list meanwhile."""
        trouble, stored = None, self._stored
        try:
            images = [one for kind in self.modalities for one in self.server.series(kind, self._filters)]
            self._segs.update(self.server)
            with self._one_thread:
                if stored != self._stored:
                    return  # the answer may be older than a label that was stored meanwhile
                self._take_over({image.uid: image for image in images})
        except RemoteError as error:
            logger.warning(error)
            trouble = error
        self._trouble, self._asked_at = trouble, time.monotonic()

    def status(self) -> dict[str, Any]:  # as MONAI Label declares it
        """Return the known numbers of images and labels, and as `error` why they may be incomplete."""
        trouble = self.refresh()
        with self._up_to_date():
            objects = self._datastore.objects.values()
            tags = [tag for entry in objects for tag in entry.labels]
            counts = {tag: tags.count(tag) for tag in sorted(set(tags))}
            known = {"total": len(objects), "completed": counts.get(FINAL, 0), "label_tags": counts}
        return known | ({"error": str(trouble)} if trouble else {})

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return images without a final label, except those that are no usable volume."""
        self.synchronise()
        with self._up_to_date():
            objects = self._datastore.objects.items()
            return [uid for uid, one in objects if FINAL not in one.labels and "refused" not in one.image.info]

    def get_image_uri(self, image_id: str) -> str:
        """Return the path of a series as NIfTI, downloaded if needed; empty if the server has no such series.

        Raises:
            VolumeError: Its slices do not form one volume.
            RemoteError: The server does not answer.
        """
        trouble = self.refresh()
        entry = self._entry(image_id)
        if entry is None and UID.fullmatch(image_id):
            self.synchronise(at_least_every=1)  # it may be newer than the last refresh
            entry = self._entry(image_id)
        if entry is None:
            return ""
        path = self._cache.volume_file(image_id)
        if "counted" in entry.image.info and path.exists():
            return str(path)
        if "refused" in entry.image.info:
            raise VolumeError(entry.image.info["refused"])
        if trouble:
            raise trouble
        self._download(image_id, entry)
        return str(path)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Return the path of a label, downloaded if it is only on the server; empty when there is none.

        Raises:
            VolumeError: It does not fit its image.
            RemoteError: The server does not answer.
        """
        trouble = self.refresh()
        path = str(super().get_label_uri(label_id, label_tag))
        if path and not os.path.exists(path) and label_tag == FINAL:
            if trouble:
                raise trouble
            path = self._download_label(label_id)
        return path

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, object]:
        """Return the record of a label; empty when there is none."""
        self.refresh()
        return dict(super().get_label_info(label_id, label_tag))

    def datalist(self, full_path: bool = True) -> list[dict[str, str]]:
        """Return the paths of `image` and `label` of every image with a usable final label."""
        pairs = []
        for image in self.get_labeled_images():
            try:
                pairs.append({"image": self.get_image_uri(image), "label": self.get_label_uri(image, FINAL)})
            except VolumeError as error:
                logger.warning(f"Left out of the list: {error}")
        if full_path:
            return pairs
        return [{key: os.path.relpath(path, self._datastore_path) for key, path in pair.items()} for pair in pairs]

    def add_image(self, image_id: str, image_filename: str, image_info: Mapping[str, object]) -> str:
        """Reject an upload, since images are added on the server."""
        if is_temporary(image_filename):
            Path(image_filename).unlink(missing_ok=True)
        raise HTTPException(400, OUTSIDE)

    def remove_image(self, image_id: str) -> None:
        """Reject an upload, since images are added on the server."""
        raise HTTPException(400, OUTSIDE)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a local label; 400 for a final one, which is on the server."""
        if label_tag == FINAL and self.get_label_info(label_id, FINAL):
            raise HTTPException(400, "Final labels are on the DICOM server: remove the DICOM SEG there")
        super().remove_label(label_id, label_tag)

    def read_segmentation(self, image_id: str, series: str) -> tuple[Volume, dict[int, str]] | None:
        """Read a DICOM SEG that was drawn on an image, whether it is the newest or not.

        Args:
            image_id: The image's id.
            series: SeriesInstanceUID of the SEG.

        Returns:
            The label map on the image's grid and the names of its values; None when there is no such SEG.

        Raises:
            VolumeError: It cannot be read, or was drawn on another grid.
            RemoteError: The server does not answer.
        """
        path = self.get_image_uri(image_id)
        found = self._segs.find(series, image_id)
        if found is None:
            self.synchronise(at_least_every=0)  # it may have been stored since the last refresh
            found = self._segs.find(series, image_id)
        if found is None or not path:
            return None
        seg = self.server.instance(found.StudyInstanceUID, series, found.SOPInstanceUID)
        volume = Volume.open(path)
        try:
            return Volume(read_seg(seg, volume), volume.affine), segment_names(seg)
        except VolumeError as error:
            raise VolumeError(f"DICOM SEG {series} of series {image_id} cannot be used: {error}") from error

    def seg_file(self, image_id: str, label_filename: str, info: Mapping[str, object]) -> str:
        """Write a label map of an image as a DICOM SEG; return the path of a temporary file.

        Raises:
            VolumeError: The label's values have no names, or no SEG can refer to the series.
            RemoteError: The server does not answer.
        """
        seg = self._make_seg(image_id, open_label(label_filename).array, info)
        file = os.path.join(tempfile.gettempdir(), f"{generate_uid()}.dcm")
        seg.save_as(file, write_like_original=False)
        return file

    def _publish(self, image_id: str, label: Volume, label_tag: str, info: Mapping[str, object]) -> dict[str, object]:
        if label_tag != FINAL:
            return {}
        self.refresh()  # for the number of the series
        seg = self._make_seg(image_id, as_label(label).array, info)
        self.server.store(seg)
        self._stored += 1
        return LabelSeg.of(seg).model_dump()

    def _make_seg(self, image_id: str, label: np.ndarray, info: Mapping[str, object]) -> Dataset:
        self.get_image_uri(image_id)
        headers = self._cache.read_headers(image_id)
        return make_label_seg(headers, label, info, self.labels, self._segs.count(headers[0].StudyInstanceUID))

    def refresh(self) -> RemoteError | None:
        """Read the list of the server; return the error if that fails."""
        try:
            self.synchronise()
        except RemoteError as error:
            return error
        return None

    def _entry(self, image_id: str) -> ImageLabelModel | None:
        with self._up_to_date():
            return self._datastore.objects.get(image_id)

    def _download(self, image_id: str, entry: ImageLabelModel) -> None:
        """Download a series into the cache, or record why it cannot be used."""
        counted = entry.image.info.get("instances")
        try:
            self._cache.download(self.server, entry.image.info["StudyInstanceUID"], image_id)
        except VolumeError as error:
            self._remember(image_id, {"refused": str(error)})
            raise
        self._remember(image_id, {"counted": counted})

    def _remember(self, image_id: str, info: Mapping[str, object]) -> None:
        with self._up_to_date():
            entry = self._datastore.objects.get(image_id)
            if entry is not None:
                entry.image.info.update(info)
                self._update_datastore_file()

    def _download_label(self, image_id: str) -> str:
        known = LabelSeg.model_validate(self.get_label_info(image_id, FINAL))
        volume = Volume.open(self.get_image_uri(image_id))
        seg = self.server.instance(known.StudyInstanceUID, known.SeriesInstanceUID, known.SOPInstanceUID)
        try:
            label = read_seg(seg, volume)
        except VolumeError as error:
            raise VolumeError(f"The label of series {image_id} cannot be used: {error}") from error
        kept = seg_label(image_id, known, segment_names(seg))
        file = Path(self._datastore.label_path(FINAL), image_id + kept.ext)
        keep_volume(Volume(label, volume.affine), file)
        with self._up_to_date():
            entry = self._datastore.objects.get(image_id)
            if entry is not None and entry.labels[FINAL].info.get(SEGMENTATION) == known.SOPInstanceUID:
                entry.labels[FINAL] = kept
                self._update_datastore_file()
        return str(file.resolve())

    def _take_over(self, images: Mapping[str, Series]) -> None:
        """Update the index to the list of the server."""
        newest = self._segs.newest(images)
        with self._up_to_date():
            before = self._datastore.model_dump_json()
            objects = self._datastore.objects
            for image_id in [image_id for image_id in objects if image_id not in images]:
                self._forget(image_id, objects.pop(image_id))
            for image_id, series in images.items():
                entry = objects.setdefault(image_id, ImageLabelModel(image=DataModel(ext=NIFTI)))
                if entry.image.info.get("instances", series.instances) != series.instances:
                    self._forget(image_id, entry)
                name = self._filename(image_id, NIFTI)
                entry.image.info.update({**series.info, "instances": series.instances, "name": name})
                self._take_over_label(image_id, entry, newest.get(image_id))
            if self._datastore.model_dump_json() != before:
                self._update_datastore_file()

    def _take_over_label(self, image_id: str, entry: ImageLabelModel, seg: SegInstance | None) -> None:
        known = entry.labels.get(FINAL)
        if (known.info.get(SEGMENTATION) if known else None) == (seg.SOPInstanceUID if seg else None):
            return
        if known:
            self._label_file(image_id, known).unlink(missing_ok=True)
            del entry.labels[FINAL]
        if seg:
            entry.labels[FINAL] = seg_label(image_id, seg.label(), seg.names)

    def _forget(self, image_id: str, entry: ImageLabelModel) -> None:
        """Remove the local files of an image that was removed or whose slices have changed."""
        self._cache.remove(image_id)
        for tag, label in list(entry.labels.items()):
            self._label_file(image_id, label, tag).unlink(missing_ok=True)
            if tag != FINAL:
                del entry.labels[tag]
        for key in ("counted", "refused"):
            entry.image.info.pop(key, None)

    def _label_file(self, image_id: str, label: DataModel, tag: str = FINAL) -> Path:
        return Path(self._datastore.label_path(tag), self._filename(image_id, label.ext))

    def _reconcile_datastore(self) -> None:
        """Remove labels whose file was deleted; images and final labels follow the DICOMweb server."""
        with self._up_to_date():
            for image_id, entry in self._datastore.objects.items():
                for tag, label in list(entry.labels.items()):
                    if tag != FINAL and not self._label_file(image_id, label, tag).exists():
                        del entry.labels[tag]
            self._update_datastore_file()
