"""A MONAI Label datastore in a folder: its lock, its index, and changes that happen completely or not at all."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from monailabel.datastore.local import ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException

from lib.datastores.events import FolderWatch
from lib.datastores.index import read_index
from lib.datastores.metadata import require_room
from lib.datastores.reconcile import RenamedLabels, reconcile
from lib.datastores.removed_records import RemovedRecords, without_files
from lib.datastores.studies_folder import StudiesFolder
from lib.errors import StudiesGoneError
from sam3d_label.errors import ReadOnlyError, StorageError, VolumeError
from sam3d_label.image.listing import FolderContent, FolderReader, end_of
from sam3d_label.io import discard, locked, part_of, remove_parts, require_format, storing, sync_file, write_bytes
from sam3d_label.studies.journal import Journal

logger = logging.getLogger(__name__)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
INDEX_FORMAT = 0
"""The index has MONAI Label's own format, without a number: one with a number is from a newer release."""

MOST_SHOWN = 100
"""Skipped files that the status names."""


def _under_the_lock(
    inherited: Callable[Concatenate[FolderDatastore, Parameters], Result],
) -> Callable[Concatenate[FolderDatastore, Parameters], Result]:
    """Return a method that holds the datastore's lock and reads the changes of other processes."""

    @wraps(inherited)
    def method(self: FolderDatastore, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with self._up_to_date():
            return inherited(self, *args, **kwargs)

    return method


class FolderDatastore(LocalDatastore):
    """MONAI Label's folder of images, labels and an index, shared safely by threads, processes and servers.

    Every access holds the folder's lock and sees what others wrote. A change writes all new files next to their
    targets and completes them by a journal (`sam3d_label.studies.journal`), so that a label and its record in the index
    change together. A folder that is read-only, or whose disk is full, can be read. Files that are not volumes are not
    listed; `skipped` and the log say why. While the folder is gone, such as after its disk was unmounted, every access
    is a `StudiesGoneError`, and nothing is written to another folder in its place.

    Args:
        datastore_path: The folder; made when missing.
        images_dir: Folder of the images in it.
        labels_dir: Folder of a folder for each label tag in it.
        datastore_config: Name of the index.
        extensions: Patterns of the names of images and labels.
        auto_reload: Whether to watch the folder for files that others put there.
        read_only: Whether to change nothing in the folder: files are listed, and a change is a `ReadOnlyError`.
    """

    keeps_gone = True
    """Whether to keep the records of removed files, in case they come back."""

    shares_folder = True
    """Whether other programs put files into the folder: they are never overwritten and the folder is not recreated."""

    _config_ts: tuple[int, int] | None

    def __init__(  # the inherited one creates folders and fails where it cannot
        self,
        datastore_path: str,
        images_dir: str = ".",
        labels_dir: str = "labels",
        datastore_config: str = "datastore_v2.json",
        extensions: Sequence[str] = ("*.nii.gz", "*.nii"),
        auto_reload: bool = False,
        read_only: bool = False,
    ) -> None:
        if not os.path.isdir(datastore_path):
            os.makedirs(datastore_path, exist_ok=True)
        self._place = StudiesFolder(datastore_path, self._has_known_index)
        self._read_only = read_only
        self.skipped: dict[str, str] = {}
        self._orphans: set[tuple[str, str]] = set()
        self._unusable: dict[str, str] = {}
        self._datastore_path = datastore_path
        self._datastore_config_path = os.path.join(datastore_path, datastore_config)
        self._extensions = [extensions] if isinstance(extensions, str) else list(extensions)
        self._reader = FolderReader(pattern.removeprefix("*").lower() for pattern in self._extensions)
        self._auto_reload = auto_reload
        self._lock_file = os.path.join(datastore_path, ".lock")
        self._one_thread, self._depth = threading.RLock(), 0
        self._journal = Journal(Path(datastore_path).absolute())
        self._gone = RemovedRecords(self._journal.path.with_name("gone.json"), read_only)
        self._unsaved: dict[str, dict[str, object]] = {}
        self._config_ts = None
        self._datastore = LocalDatastoreModel(
            name="new-dataset", description="New Dataset", images_dir=images_dir, labels_dir=labels_dir
        )
        self._datastore.base_path = datastore_path
        with self._up_to_date():
            if not read_only:
                self._make_folders()
            self._reconcile_datastore()
        if auto_reload:
            self._watch()

    datalist = _under_the_lock(LocalDatastore.datalist)
    get_label_uri = _under_the_lock(LocalDatastore.get_label_uri)
    get_labeled_images = _under_the_lock(LocalDatastore.get_labeled_images)
    get_unlabeled_images = _under_the_lock(LocalDatastore.get_unlabeled_images)
    json = _under_the_lock(LocalDatastore.json)
    list_images = _under_the_lock(LocalDatastore.list_images)
    refresh = _under_the_lock(LocalDatastore.refresh)

    def get_image_uri(self, image_id: str) -> str:
        """Return the path of an image, also of one that is not listed because it is damaged; empty for no image."""
        with self._up_to_date():
            extension = self._unusable.get(image_id)
            if extension is None or image_id in self._datastore.objects:
                return str(super().get_image_uri(image_id))
            return os.path.realpath(os.path.join(self._datastore.image_path(), self._filename(image_id, extension)))

    def get_image_info(self, image_id: str) -> dict[str, object]:
        """Return a copy of the record of an image; empty when there is none."""
        with self._up_to_date():
            known: dict[str, object] = super().get_image_info(image_id)
            return {**known, **self._unsaved.get(image_id, {})} if known else {}

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, object]:
        """Return a copy of the record of a label; empty when there is none."""
        with self._up_to_date():
            return dict(super().get_label_info(label_id, label_tag))

    def status(self) -> dict[str, Any]:  # as MONAI Label declares it
        """Return how many images and labels there are, and why files are not listed or the folder cannot be read."""
        try:
            with self._up_to_date():
                known: dict[str, object] = super().status()
                shown = dict(list(self.skipped.items())[:MOST_SHOWN])
                return {**known, "skipped": shown} if shown else known
        except StudiesGoneError as error:
            return {"total": 0, "completed": 0, "label_tags": {}, "label_counts": {}, "error": str(error)}

    @contextmanager
    def _up_to_date(self) -> Iterator[None]:
        """Hold the lock of the datastore, and read the changes of other processes."""
        with self._one_thread:
            if self._depth:
                yield
                return
            is_back = self._require_folder()
            with nullcontext() if self._read_only else locked(Path(self._lock_file)):
                self._depth += 1
                try:
                    if not self._read_only:
                        self._journal.recover()
                    self._init_from_datastore_file()
                    if is_back:
                        self._look_again()
                    yield
                finally:
                    self._depth -= 1

    def _require_folder(self) -> bool:
        """Check that the folder is the one that was opened; return whether it has just come back.

        Raises:
            StudiesGoneError: It is not there, or it is another one.
        """
        return self.shares_folder and self._place.check()

    def _has_known_index(self) -> bool:
        return self._config_ts is not None and _stamp(Path(self._datastore_config_path)) == self._config_ts

    def _look_again(self) -> None:
        """Read the changes in a folder that is available again, and watch it again."""
        self._reconcile_datastore()
        if self._auto_reload and self._observer is not None:
            self._observer.stop()
            self._watch()

    def _known(self, image_id: str) -> ImageLabelModel:
        with self._up_to_date():
            entry = self._datastore.objects.get(image_id)
        if entry is None:
            name = self._filename(image_id, self._unusable.get(image_id, ""))
            reason = f": {name} cannot be used: {self.skipped[name]}" if name in self.skipped else ""
            raise ImageNotFoundException(f"There is no image {image_id!r} in the datastore{reason}")
        return entry

    @contextmanager
    def _received(self, source: str, folder: str, name: str) -> Iterator[Path]:
        """Yield a flushed copy of a file next to its target; it is removed if the block fails."""
        self._require_writable()
        target = Path(folder, name).absolute()
        part = part_of(target)
        try:
            with storing(target):
                os.makedirs(folder, exist_ok=True)
                shutil.copyfile(source, part)
                sync_file(part)
            yield part
        except BaseException:
            discard(part)
            raise

    def _change(
        self,
        image_id: str,
        entry: ImageLabelModel | None,
        replace: Mapping[Path, Path] | None = None,
        remove: Iterable[Path] = (),
    ) -> None:
        """Change the record of an image and files together.

        Args:
            image_id: The image.
            entry: Its new record; None to remove it.
            replace: Target of each flushed part file.
            remove: Files to remove.

        Raises:
            StorageError: Nothing has changed.
        """
        self._require_writable()
        objects = {**self._datastore.objects, **({image_id: entry} if entry else {})}
        if entry is None:
            objects.pop(image_id, None)
        changed = self._datastore.model_copy(update={"objects": objects})
        config = Path(self._datastore_config_path).absolute()
        part, content = part_of(config), _as_json(changed)
        before, after = (
            len(one.model_dump_json()) if one else 0 for one in (self._datastore.objects.get(image_id), entry)
        )
        if after > before:
            require_room(len(content), after)
        try:
            with storing(config):
                part.write_bytes(content)
                sync_file(part)
            self._journal.commit({**(replace or {}), part: config}, remove)
        except BaseException:
            discard(part)
            raise
        self._datastore = changed
        self._config_ts = _stamp(config)

    def _require_writable(self) -> None:
        self._require_folder()
        if self._read_only:
            raise ReadOnlyError(
                "Nothing can be stored: the server is started with MONAI_LABEL_DATASTORE_READ_ONLY, so that the studies"
                " folder is read-only. Start it without this setting",
                errno.EROFS,
            )

    def _files_of(self, folder: str, image_id: str, extensions: Iterable[str]) -> list[Path]:
        return [Path(folder, self._filename(image_id, extension)).absolute() for extension in extensions]

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        """Read the index again if another process has changed it."""
        config = Path(self._datastore_config_path)
        written = _stamp(config)
        if written in (None, self._config_ts):
            return
        content = config.read_bytes()
        found = read_index(content)
        require_format(found.format, INDEX_FORMAT, config)
        if not found.whole:  # earlier records replace those that could not be read
            found.index.objects = {**self._datastore.objects, **found.index.objects}
        found.index.base_path = self._datastore_path
        self._datastore, self._config_ts = found.index, written
        if found.damage:
            self._repair(config, content, found.damage)

    def _repair(self, config: Path, content: bytes, damage: Sequence[str]) -> None:
        """Log the omitted records, keep the damaged index under another name, and write a valid one."""
        for line in damage:
            logger.error("%s: %s", config.name, line)
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        try:
            self._require_writable()
            kept = config.with_name(f"{config.stem}.damaged-{now}{config.suffix}")
            write_bytes(kept, content)
            logger.error("%s: the damaged index is kept as %s", config.name, kept.name)
            self._update_datastore_file()
        except StorageError as error:
            logger.error("The index stays damaged on the disk: %s", error)

    def _update_datastore_file(self, lock: bool = True) -> None:
        self._require_writable()
        config = Path(self._datastore_config_path)
        write_bytes(config, _as_json(self._datastore))
        self._config_ts = _stamp(config)

    def _make_folders(self) -> None:
        model = self._datastore
        tags = (None, DefaultLabelTag.FINAL, DefaultLabelTag.ORIGINAL)
        try:
            with storing(Path(self._datastore_path)):
                for folder in (model.image_path(), *map(model.label_path, tags)):
                    os.makedirs(folder, exist_ok=True)
        except StorageError as error:
            logger.warning("The datastore can be read only: %s", error)
        labels = Path(model.label_path(None))
        for place in (Path(model.image_path()), self._journal.path.parent, labels, *labels.glob("*")):
            remove_parts(place)  # other servers may be writing, so only old ones are removed

    def _reconcile_datastore(self) -> None:
        """Update the index to the existing files."""
        with self._up_to_date():
            before, gone = self._datastore.objects, self._gone.read() if self.keeps_gone else {}
            images, labels = self._listed(before)
            self._require_folder()  # else it would seem that all files were removed
            renamed = RenamedLabels((before, gone), labels, self._datastore.label_path)
            found = reconcile((before, gone), images, labels, renamed, self._report_orphan)
            for image in before.keys() - found.keys():
                logger.info("Image %s is gone", image)
            if self.keeps_gone:
                self._gone.write({**gone, **without_files(before, gone, found)})  # before the index forgets them
            if found != before or not os.path.exists(self._datastore_config_path):
                self._datastore = self._datastore.model_copy(update={"objects": found})
                try:
                    self._update_datastore_file()
                except StorageError as error:
                    if not self._read_only:
                        logger.warning("Files that are new or gone are known until the server ends: %s", error)
            if self.keeps_gone:
                self._gone.write(without_files(before, gone, found))

    def _listed(self, known: Mapping[str, ImageLabelModel]) -> tuple[FolderContent, dict[str, FolderContent]]:
        """Return the images, and the labels by tag; skipped files are logged once."""
        model = self._datastore
        images = self._reader.read(
            Path(model.image_path()), {image: record.image.ext for image, record in known.items()}
        )
        labels, skipped = {}, dict(images.skipped)
        folder = Path(model.label_path(None))
        for tag in sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
            extensions = {image: record.labels[tag].ext for image, record in known.items() if tag in record.labels}
            labels[tag] = self._reader.read(Path(model.label_path(tag)), extensions)
            skipped |= {f"{model.labels_dir}/{tag}/{name}": why for name, why in labels[tag].skipped.items()}
        self._unusable = images.unusable
        for name, reason in skipped.items():
            if self.skipped.get(name) != reason:
                logger.warning("%s in the studies folder is not listed: %s", name, VolumeError(reason))
        self.skipped = skipped
        return images, labels

    def _report_orphan(self, image: str, tag: str) -> None:
        if (image, tag) not in self._orphans:
            logger.warning("Label %s (%s) has no image and is ignored", image, tag)
            self._orphans.add((image, tag))

    def _to_id(self, file: str) -> tuple[str, str]:
        extension = end_of(file)
        return (file[: -len(extension)], extension.lower()) if extension else super()._to_id(file)

    def _watch(self) -> None:
        """Refresh soon after a file was added, removed or changed."""
        polling = self._is_on_mount(os.path.abspath(self._datastore.image_path()))
        self._observer = FolderWatch(self._datastore_path, self._is_of_interest, self.refresh, polling)

    def _is_of_interest(self, folder: str, name: str) -> bool:
        """Return whether a file is, or may become, an image or a label."""
        model, folder = self._datastore, os.path.abspath(folder)
        images, labels = (os.path.abspath(path) for path in (model.image_path(), model.label_path(None)))
        return folder in (images, os.path.join(labels, os.path.basename(folder))) and bool(end_of(name))


def _as_json(model: LocalDatastoreModel) -> bytes:
    return json.dumps(model.model_dump(exclude={"base_path"}), indent=2, default=str, allow_nan=False).encode()


def _stamp(file: Path) -> tuple[int, int] | None:
    """Return values that change whenever a file is replaced: its time (ns) and inode; None without a file."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_ino
