"""The datastore of a studies folder: what it accepts is checked first and durable afterwards."""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fastapi import HTTPException
from monailabel.datastore.local import DataModel, ImageLabelModel
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from lib.datastores.archive import pack
from lib.datastores.checks import (
    EXTENSIONS,
    IdError,
    check_extension,
    check_id,
    check_label,
    check_tag,
    is_volume,
    same_bytes,
)
from lib.datastores.folder import FolderDatastore
from lib.datastores.metadata import checked
from lib.datastores.reconcile import CHECKSUM, checksum
from lib.datastores.segment_names import check_names
from lib.errors import http_error
from lib.temporary import is_temporary
from sam3d_label.errors import Sam3dError, StorageError, VolumeError
from sam3d_label.image.listing import end_of, fault_of
from sam3d_label.image.volume import Volume

__all__ = ["EXTENSIONS", "IdError", "SafeDatastore", "check_id", "check_label", "check_tag", "remember"]
logger = logging.getLogger(__name__)
UPLOADED = "uploaded"
"""Key of an image's info with size and time of the file that was uploaded: only such a file may be replaced."""

GONE = "The file of image {!r} is gone: upload the image again"


class SafeDatastore(FolderDatastore):
    """A datastore of 3D volumes. Rejections are HTTP errors that say why and how to fix it.

    A file is copied next to its place, flushed and verified there, and that very file is renamed into place. When a
    method that changes something returns, the change is on the disk.
    """

    def add_image(self, image_id: str, image_filename: str, image_info: Mapping[str, object]) -> str:
        """Add a volume, or replace an earlier upload that has no labels yet. No other file is replaced or removed.

        Args:
            image_id: Its id; empty = the file's name.
            image_filename: The file to copy.
            image_info: Metadata to store with it.

        Returns:
            The id.

        Raises:
            HTTPException: 400; the id or the file is rejected, or another file is in its place. 403; the folder is
                read-only. 507; the disk is full.
        """
        with _refusals(image_filename):
            name, extension = self._to_id(os.path.basename(image_filename))
            image_id = check_id(image_id or name)
            check_extension(extension)
            file_name = self._filename(image_id, extension)
            info = {**checked(image_info, "params"), "ts": int(time.time()), "name": file_name}
            folder = self._datastore.image_path()
            with self._received(image_filename, folder, file_name) as part:
                with _called(part, "The file"):
                    Volume.open(part).require_plausible_size()
                with self._up_to_date():
                    known = self._datastore.objects.get(image_id)
                    self._require_replaceable(image_id, known, part, Path(folder, file_name))
                    entry = ImageLabelModel(
                        image=DataModel(info=info | {UPLOADED: _size_and_time(part)}, ext=extension),
                        labels=dict(known.labels) if known else {},
                    )
                    former = [known.image.ext] if known and known.image.ext != extension else []
                    self._change(
                        image_id,
                        entry,
                        {part: Path(folder, file_name).absolute()},
                        self._files_of(folder, image_id, former),
                    )
        return image_id

    def _require_replaceable(self, image_id: str, known: ImageLabelModel | None, part: Path, target: Path) -> None:
        """Check that an upload replaces at most an earlier upload without labels, or the same bytes.

        Raises:
            IdError: Another file is in its place.
        """
        current = target.with_name(self._filename(image_id, known.image.ext)) if known else target
        if current != target:
            self._require_free(target, part)
        if not os.path.lexists(current) or (current == target and _is_copy(part, current)):
            return
        if known and known.labels:
            raise IdError(f"Image {image_id!r} exists and has labels: upload under another id, or remove it first")
        if not known or known.image.info.get(UPLOADED) != _size_and_time(current):
            raise IdError(
                f"Image {image_id!r} exists as {current.name}, which was not uploaded and is kept: upload under another"
                " id, or remove it first"
            )

    def _require_free(self, target: Path, part: Path) -> None:
        """Check that a change does not lose a file without a record.

        Args:
            target: Where a file is to be put.
            part: The file.

        Raises:
            IdError: Another file is there.
        """
        if self.shares_folder and os.path.lexists(target) and not _is_copy(part, target):
            where = os.path.relpath(target, os.path.abspath(self._datastore_path))
            raise IdError(
                f"There is another file {where} in the studies folder, which is kept: rename or remove it there first"
            )

    def _require_no_heir(self, image_id: str, files: Iterable[Path]) -> None:
        """Check that no other file has the id of files to be removed, and would replace them.

        Raises:
            IdError: There is such a file.
        """
        for file in files if self.shares_folder else ():
            for other in sorted(file.parent.glob(f"{glob.escape(image_id)}.*")):
                extension = end_of(other.name)
                if other != file and other.name == image_id + extension and fault_of(other, extension) is None:
                    where = os.path.relpath(other, os.path.abspath(self._datastore_path))
                    raise IdError(
                        f"{where} in the studies folder has the same id and would replace {file.name}: rename"
                        " or remove it there first"
                    )

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: Mapping[str, object]) -> str:
        """Save a label of an image, replacing an earlier one of this tag.

        Args:
            image_id: The image's id.
            label_filename: The file to copy.
            label_tag: `final`, `original`, or another name.
            label_info: Metadata to store with it.

        Returns:
            The label's id, which is the image's.

        Raises:
            HTTPException: 400; the tag or the file is rejected, or another file is in its place. 403; the folder is
                read-only. 404; there is no such image. 409; the image was replaced meanwhile. 507; the disk is full.
        """
        with _refusals(label_filename):
            check_tag(label_tag)
            info = checked(label_info, "params")
            self._known(image_id)
            _, extension = self._to_id(os.path.basename(label_filename))
            check_extension(extension)
            file_name, folder = self._filename(image_id, extension), self._datastore.label_path(label_tag)
            with self._received(label_filename, folder, file_name) as part:
                with _called(part, f"The label of image {image_id!r}"):
                    label = Volume.open(part)
                    image = self._image_for(image_id, label)
                    check_names(str(part), label, info)
                info |= {"ts": int(time.time()), "name": file_name, CHECKSUM: checksum(part)}
                info |= self._publish(image_id, label, label_tag, info)
                with self._up_to_date():
                    known = self._known(image_id)
                    found = _identity(self.get_image_uri(image_id))
                    if found is None:
                        raise ImageNotFoundException(GONE.format(image_id))
                    if found != image:
                        raise HTTPException(409, f"Image {image_id!r} was replaced meanwhile: save the label again")
                    labels = {**known.labels, label_tag: DataModel(info=info, ext=extension)}
                    former = known.labels.get(label_tag)
                    target = Path(folder, file_name).absolute()
                    if former is None or former.ext != extension:
                        self._require_free(target, part)
                    replaced = [former.ext] if former and former.ext != extension else []
                    self._change(
                        image_id,
                        ImageLabelModel(image=known.image, labels=labels),
                        {part: target},
                        self._files_of(folder, image_id, replaced),
                    )
        return image_id

    def _image_for(self, image_id: str, label: Volume) -> object:
        """Compare a label with its image; return the identity of the image's file."""
        path = self.get_image_uri(image_id)
        identity = _identity(path)
        try:
            if identity is None:
                raise ImageNotFoundException(GONE.format(image_id))
            image = Volume.open(path)
        except VolumeError as error:
            self._known(image_id)
            if _identity(path) is None:
                raise ImageNotFoundException(f"Image {image_id!r} was removed meanwhile") from error
            raise VolumeError(str(error).replace(os.path.basename(path), f"Image {image_id!r}")) from error
        check_label(label, image)
        return identity

    def _publish(self, image_id: str, label: Volume, label_tag: str, info: Mapping[str, object]) -> dict[str, object]:
        """Store a label outside the folder too, if the datastore does; return metadata to record."""
        return {}

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels; 404 when there is none, 400 when another file would take its place."""
        with _refusals(), self._up_to_date():
            known = self._known(image_id)
            files = self._files_of(self._datastore.image_path(), image_id, [known.image.ext])
            for tag, label in known.labels.items():
                files += self._files_of(self._datastore.label_path(tag), image_id, [label.ext])
            self._require_no_heir(image_id, files)
            self._require_writable()
            self._gone.forget(image_id)
            self._change(image_id, None, remove=files)
            self._unsaved.pop(image_id, None)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label; 404 when there is none, 400 when another file would take its place."""
        with _refusals(), self._up_to_date():
            label = self._label(label_id, label_tag)
            known = self._known(label_id)
            rest = {tag: kept for tag, kept in known.labels.items() if tag != label_tag}
            files = self._files_of(self._datastore.label_path(label_tag), label_id, [label.ext])
            self._require_no_heir(label_id, files)
            self._require_writable()
            self._gone.forget(label_id, label_tag)
            self._change(label_id, ImageLabelModel(image=known.image, labels=rest), remove=files)

    def update_image_info(self, image_id: str, info: Mapping[str, object]) -> None:
        """Add to the metadata of an image; 404 when there is none."""
        with _refusals(), self._up_to_date():
            known = self._known(image_id)
            image = DataModel(ext=known.image.ext, info=checked({**known.image.info, **checked(info)}))
            self._change(image_id, ImageLabelModel(image=image, labels=known.labels))

    def remember_image_info(self, image_id: str, info: Mapping[str, object]) -> None:
        """Add to the metadata of an image; in memory only if it cannot be stored."""
        try:
            self.update_image_info(image_id, info)
        except HTTPException as error:
            if not isinstance(error.__cause__, StorageError):
                raise
            logger.warning("The metadata of an image is not stored: %s", error.detail)
            with self._one_thread:
                self._unsaved[image_id] = {**self._unsaved.get(image_id, {}), **checked(info)}

    def update_label_info(self, label_id: str, label_tag: str, info: Mapping[str, object]) -> None:
        """Add to the metadata of a label; 404 when there is none."""
        with _refusals(), self._up_to_date():
            label = self._label(label_id, label_tag)
            known = self._known(label_id)
            changed = DataModel(ext=label.ext, info=checked({**label.info, **checked(info)}))
            self._change(label_id, ImageLabelModel(image=known.image, labels={**known.labels, label_tag: changed}))

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Return the path of a ZIP with images and labels; 404 when nothing is labelled."""
        with self._up_to_date():
            cases, metadata = self.datalist(), self._datastore.model_dump_json(exclude={"base_path"})
        cases = [case for case in cases if all(is_volume(file) or not os.path.exists(file) for file in case.values())]
        if not cases:
            raise HTTPException(404, "There is nothing to download: no label is saved yet")
        try:
            return pack(cases[:limit_cases], metadata)
        except FileNotFoundError as error:
            raise HTTPException(409, "A file was removed while the archive was made: try again") from error

    def _label(self, label_id: str, label_tag: str) -> DataModel:
        label: DataModel | None = self._datastore.label(label_id, label_tag)
        if label is None:
            raise LabelNotFoundException(f"There is no label {label_id!r} with the tag {label_tag!r}")
        return label


def remember(datastore: Datastore, image_id: str, info: Mapping[str, object]) -> None:
    """Add to the metadata of an image; in memory only if the disk is full or read-only."""
    if isinstance(datastore, SafeDatastore):
        datastore.remember_image_info(image_id, info)
    else:
        datastore.update_image_info(image_id, info)


def _is_copy(part: Path, file: Path) -> bool:
    return file.is_file() and same_bytes(part, file)


def _size_and_time(file: Path) -> list[int]:
    """Return bytes of a file and when it was written, ns."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _identity(path: str) -> object:
    """Return values that differ between a file and its replacement; None when there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


@contextmanager
def _called(file: Path, name: str) -> Iterator[None]:
    """Replace a path in an error's message, as the caller does not know the file under it."""
    try:
        yield
    except VolumeError as error:
        raise type(error)(str(error).replace(str(file), name).replace(file.name, name)) from error


@contextmanager
def _refusals(upload: str = "") -> Iterator[None]:
    """Convert a rejection to an HTTP error, and delete the upload, which the server would leave."""
    try:
        yield
    except (Sam3dError, ImageNotFoundException, LabelNotFoundException) as error:
        if upload and is_temporary(upload):
            Path(upload).unlink(missing_ok=True)
        described = http_error(error)
        if upload:
            described.detail = described.detail.replace(upload, "The file")
        raise described from error
