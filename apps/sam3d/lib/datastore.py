"""A local datastore that refuses bad ids, tags and files, and never leaves half a file."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from lib.errors import http_error
from lib.segments import check_names
from lib.temporary import is_temporary
from sam3d_label.errors import Sam3dError, VolumeError
from sam3d_label.volume import Volume

logger = logging.getLogger(__name__)
EXTENSIONS = (".nii.gz", ".nii", ".nrrd")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MAX_ID_LENGTH = 200


class IdError(Sam3dError):
    """An image id or a label tag that cannot name a file."""


def check_id(image_id: str) -> str:
    """Lets an image id through that names one file in one folder.

    Raises:
        IdError: It is empty, too long, hidden, or holds a path separator or a control character.
    """
    if not image_id or len(image_id) > MAX_ID_LENGTH or image_id.startswith(".") or not image_id.isprintable():
        raise IdError(f"{image_id!r} cannot be an image id: use 1 to {MAX_ID_LENGTH} characters, the first not a dot")
    if set(image_id) & {"/", "\\"}:
        raise IdError(f"{image_id!r} cannot be an image id: it must be a name, not a path")
    return image_id


def check_tag(tag: str) -> str:
    """Lets a label tag through that names one folder.

    Raises:
        IdError: It holds anything but letters, digits, dot, dash and underscore, or starts with a dot.
    """
    if not isinstance(tag, str) or not TAG.fullmatch(tag):
        raise IdError(
            f"{tag!r} cannot be a label tag: use letters, digits, dots, dashes and underscores, such as final"
        )
    return tag


def check_info(info: Any) -> None:
    """Lets through what a client sends about a label: names to values, or nothing.

    Raises:
        Sam3dError: It is something else.
    """
    if info and not isinstance(info, Mapping):
        raise Sam3dError('params must be a JSON object, such as {"label_info": [{"name": "tumor", "idx": 1}]}')


def check_label(label: Volume, image: Volume) -> None:
    """Compares a label with its image.

    Raises:
        VolumeError: Another grid, another place in the world (by a tenth of a voxel at some corner), or
            values that are not whole numbers from 0.
    """
    if label.shape != image.shape:
        raise VolumeError(f"The label has {_size(label)} voxels, its image {_size(image)}: save it on the image's grid")
    shift = _largest_corner_shift(label, image)
    if shift > 0.1 * min(image.spacing):
        raise VolumeError(f"The label lies up to {shift:.3g} mm beside its image: save it with the image's geometry")
    if np.any(label.array < 0) or np.any(label.array != np.rint(label.array)):
        raise VolumeError("The label's values are not whole numbers from 0: save a label map, not an image")


def _size(volume: Volume) -> str:
    return " x ".join(map(str, volume.shape))


def _largest_corner_shift(one: Volume, other: Volume) -> float:
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in one.shape], [1])).reshape(4, -1)
    return float(np.linalg.norm(((one.affine - other.affine) @ corners)[:3], axis=0).max())


def _one_at_a_time(name: str) -> Callable[..., Any]:
    """A method of `LocalDatastore` under the datastore's lock: others have its files in their hands as well."""
    inherited = getattr(LocalDatastore, name)

    def method(self: SafeDatastore, *args: Any, **kwargs: Any) -> Any:
        with self._up_to_date():
            return inherited(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, inherited.__doc__
    return method


class SafeDatastore(LocalDatastore):
    """`LocalDatastore` for 3D volumes. What it refuses, it refuses with an HTTP 400 or 404 that says why.

    The file watcher has a thread of its own, batch inference and training have processes of their own: whoever
    reads or changes the datastore's file holds its locks, and sees what the others wrote.
    """

    _config_ts: Any

    def __init__(self, datastore_path: str, **kwargs: Any) -> None:
        os.makedirs(datastore_path, exist_ok=True)
        self._one_thread = threading.RLock()
        self._one_process = FileLock(os.path.join(datastore_path, ".lock"))
        with self._one_process:
            super().__init__(datastore_path, **kwargs)

    get_image_uri = _one_at_a_time("get_image_uri")
    get_image_info = _one_at_a_time("get_image_info")
    get_label_uri = _one_at_a_time("get_label_uri")
    get_label_info = _one_at_a_time("get_label_info")
    datalist = _one_at_a_time("datalist")
    list_images = _one_at_a_time("list_images")
    get_labeled_images = _one_at_a_time("get_labeled_images")
    get_unlabeled_images = _one_at_a_time("get_unlabeled_images")
    status = _one_at_a_time("status")
    json = _one_at_a_time("json")
    refresh = _one_at_a_time("refresh")

    def _to_id(self, file: str) -> tuple[str, str]:
        extension = _extension(file)
        return (file[: -len(extension)], extension) if extension else super()._to_id(file)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Adds a volume, or replaces one that has no labels yet.

        Args:
            image_id: Its id; empty = the file's name.
            image_filename: The file to copy.
            image_info: What to remember about it.

        Returns:
            The id.

        Raises:
            HTTPException: 400; the id or the file is refused, or other voxels are labelled under this id.
        """
        with _refusals(image_filename), self._one_thread:
            name, extension = self._to_id(os.path.basename(image_filename))
            image_id = check_id(image_id or name)
            _check_extension(extension)
            Volume.open(image_filename)
            info = {**(image_info or {}), "ts": int(time.time()), "name": self._filename(image_id, extension)}
            with self._up_to_date():
                known = self._datastore.objects.get(image_id)
                if known and known.labels and not _same_bytes(image_filename, self.get_image_uri(image_id)):
                    raise IdError(
                        f"Image {image_id!r} exists and has labels: upload under another id, or remove it first"
                    )
                labels = dict(known.labels) if known else {}
                self._place(image_filename, self._datastore.image_path(), image_id, extension)
                entry = ImageLabelModel(image=DataModel(info=info, ext=extension), labels=labels)
                self._datastore.objects[image_id] = entry
                self._update_datastore_file()
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Saves a label beside its image, in place of an earlier one of this tag.

        Args:
            image_id: The image's id.
            label_filename: The file to copy.
            label_tag: `final`, `original`, or another name.
            label_info: What to remember about it.

        Returns:
            The label's id, which is the image's.

        Raises:
            HTTPException: 400; the tag or the file is refused. 404; there is no such image.
        """
        with _refusals(label_filename), self._one_thread:
            check_tag(label_tag)
            check_info(label_info)
            self._known(image_id)
            _, extension = self._to_id(os.path.basename(label_filename))
            _check_extension(extension)
            label = Volume.open(label_filename)
            check_label(label, Volume.open(self.get_image_uri(image_id)))
            check_names(label_filename, label, label_info or {})
            info = {**(label_info or {}), "ts": int(time.time()), "name": self._filename(image_id, extension)}
            info |= self._publish(image_id, label, label_tag, info)
            with self._up_to_date():
                known = self._known(image_id)
                self._place(label_filename, self._datastore.label_path(label_tag), image_id, extension)
                known.labels[label_tag] = DataModel(info=info, ext=extension)
                self._update_datastore_file()
        return image_id

    def _publish(self, image_id: str, label: Volume, label_tag: str, info: Mapping[str, Any]) -> dict[str, Any]:
        """Hands a label on before it is kept here; what to remember about that. A folder has nobody to hand it to."""
        return {}

    def remove_image(self, image_id: str) -> None:
        """Removes an image and its labels; 404 when there is none."""
        with _refusals(), self._up_to_date():
            self._known(image_id)
            super().remove_image(image_id)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Removes a label; 404 when there is none."""
        with _refusals(), self._up_to_date():
            if self._datastore.label(label_id, label_tag) is None:
                raise LabelNotFoundException(f"There is no label {label_id!r} with the tag {label_tag!r}")
            super().remove_label(label_id, label_tag)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Adds to what is remembered about an image; 404 when there is none."""
        with _refusals(), self._up_to_date():
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Adds to what is remembered about a label; 404 when there is none."""
        with _refusals(), self._up_to_date():
            super().update_label_info(label_id, label_tag, info)

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Path of a ZIP with images and labels; 404 when nothing is labelled."""
        if not self.datalist():
            raise HTTPException(404, "There is nothing to download: no label is saved yet")
        return super().get_dataset_archive(limit_cases)

    @contextmanager
    def _up_to_date(self) -> Iterator[None]:
        """Lets one thread of one process read or change what the datastore's file holds now."""
        with self._one_thread, self._one_process:
            self._init_from_datastore_file()
            yield

    def _known(self, image_id: str) -> ImageLabelModel:
        with self._up_to_date():
            entry = self._datastore.objects.get(image_id)
        if entry is None:
            raise ImageNotFoundException(f"There is no image {image_id!r} in the datastore")
        return entry

    def _place(self, source: str, folder: str, image_id: str, extension: str) -> None:
        """Copies beside the destination, renames over it, and drops this id's file of another extension."""
        os.makedirs(folder, exist_ok=True)
        destination = Path(folder, self._filename(image_id, extension))
        _replace(destination, lambda beside: shutil.copyfile(source, beside))
        for other in EXTENSIONS:
            if other != extension:
                Path(folder, self._filename(image_id, other)).unlink(missing_ok=True)

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self._one_process:
            config = Path(self._datastore_config_path)
            written = _stamp(config)
            if written not in (None, self._config_ts):
                try:
                    self._datastore = LocalDatastoreModel.model_validate_json(config.read_text(encoding="utf-8"))
                except ValueError as error:
                    logger.error(f"{config} cannot be read: {error}")
                    if throw_exception:
                        raise
                    return
                self._datastore.base_path = self._datastore_path
                self._config_ts = written

    def _update_datastore_file(self, lock: bool = True) -> None:
        with self._one_process:
            content = copy.deepcopy(self._datastore.model_dump(exclude={"base_path"}))
            text = json.dumps(content, indent=2, default=str)
            config = Path(self._datastore_config_path)
            _replace(config, lambda beside: beside.write_text(text, encoding="utf-8"))
            self._config_ts = _stamp(config)


def _stamp(file: Path) -> tuple[int, int] | None:
    """What changes whenever a file is replaced: its time (ns) and number; None when there is none."""
    if not file.exists():
        return None
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_ino


def _extension(file: str) -> str:
    return next((extension for extension in EXTENSIONS if file.endswith(extension)), "")


def _check_extension(extension: str) -> None:
    if extension not in EXTENSIONS:
        raise VolumeError(f"A file of type {extension or '(none)'!r} is not taken: send one of {', '.join(EXTENSIONS)}")


def _same_bytes(one: str, other: str) -> bool:
    return os.path.getsize(one) == os.path.getsize(other) and Path(one).read_bytes() == Path(other).read_bytes()


def _replace(destination: Path, write: Callable[[Path], Any]) -> None:
    beside = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}.part")
    try:
        write(beside)
        os.replace(beside, destination)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _refusals(upload: str = "") -> Iterator[None]:
    """Turns what is refused into an HTTP error, and deletes the upload, which the server would leave."""
    try:
        yield
    except (Sam3dError, ImageNotFoundException, LabelNotFoundException) as error:
        if upload and is_temporary(upload):
            Path(upload).unlink(missing_ok=True)
        described = http_error(error)
        if upload:
            described.detail = described.detail.replace(upload, "The file")
        raise described from error
