"""A MONAI Label datastore in a folder: its lock, its index, and changes that happen completely or not at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException
from watchdog.observers import Observer
from watchdog.observers.polling import PollingObserver

from lib.datastores.checks import file_extension
from lib.datastores.events import FolderEvents
from lib.datastores.index import read_index
from sam3d_label.errors import StorageError
from sam3d_label.io import discard, locked, part_of, remove_parts, storing, sync_file, write_bytes
from sam3d_label.journal import Journal

logger = logging.getLogger(__name__)


def _under_the_lock(name: str) -> Callable[..., Any]:
    """A method of `LocalDatastore` that runs under the datastore's lock, with what other processes wrote."""
    inherited = getattr(LocalDatastore, name)

    def method(self: FolderDatastore, *args: Any, **kwargs: Any) -> Any:
        with self._up_to_date():
            return inherited(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, inherited.__doc__
    return method


class FolderDatastore(LocalDatastore):
    """MONAI Label's folder of images, labels and an index, shared safely by threads, processes and servers.

    Every access holds the folder's lock and sees what others wrote. A change writes all new files next to their
    targets and completes them by a journal (`sam3d_label.journal`), so that a label and its record in the index
    change together. A folder that is read-only, or whose disk is full, can be read.

    Args:
        datastore_path: The folder; made when missing.
        images_dir: Folder of the images in it.
        labels_dir: Folder of a folder for each label tag in it.
        datastore_config: Name of the index.
        extensions: Patterns of the names of images and labels.
        auto_reload: Whether to watch the folder for files that others put there.
        read_only: Whether to leave the index as it is at the start.
    """

    _config_ts: Any

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
        os.makedirs(datastore_path, exist_ok=True)
        self._datastore_path = datastore_path
        self._datastore_config_path = os.path.join(datastore_path, datastore_config)
        self._extensions = [extensions] if isinstance(extensions, str) else list(extensions)
        self._ignore_event_count, self._ignore_event_config = 0, False
        self._auto_reload = auto_reload
        self._lock_file = os.path.join(datastore_path, ".lock")
        self._one_thread, self._depth = threading.RLock(), 0
        self._journal = Journal(Path(datastore_path).absolute())
        self._unsaved: dict[str, dict[str, Any]] = {}
        self._config_ts = None
        self._datastore = LocalDatastoreModel(
            name="new-dataset", description="New Dataset", images_dir=images_dir, labels_dir=labels_dir
        )
        self._datastore.base_path = datastore_path
        with self._up_to_date():
            self._make_folders()
            if not read_only:
                self._reconcile_datastore()
        if auto_reload:
            self._watch()

    datalist = _under_the_lock("datalist")
    get_image_uri = _under_the_lock("get_image_uri")
    get_label_uri = _under_the_lock("get_label_uri")
    get_labeled_images = _under_the_lock("get_labeled_images")
    get_unlabeled_images = _under_the_lock("get_unlabeled_images")
    json = _under_the_lock("json")
    list_images = _under_the_lock("list_images")
    refresh = _under_the_lock("refresh")
    status = _under_the_lock("status")

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return a copy of what is known about an image; empty when there is none."""
        with self._up_to_date():
            known: dict[str, Any] = super().get_image_info(image_id)
            return {**known, **self._unsaved.get(image_id, {})} if known else {}

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Return a copy of what is known about a label; empty when there is none."""
        with self._up_to_date():
            return dict(super().get_label_info(label_id, label_tag))

    @contextmanager
    def _up_to_date(self) -> Iterator[None]:
        """Let one thread of one process read or change the datastore, as the others have left it."""
        with self._one_thread:
            if self._depth:
                yield
                return
            with locked(Path(self._lock_file)):
                self._depth += 1
                try:
                    self._journal.recover()
                    self._init_from_datastore_file()
                    yield
                finally:
                    self._depth -= 1

    def _known(self, image_id: str) -> ImageLabelModel:
        with self._up_to_date():
            entry = self._datastore.objects.get(image_id)
        if entry is None:
            raise ImageNotFoundException(f"There is no image {image_id!r} in the datastore")
        return entry

    @contextmanager
    def _received(self, source: str, folder: str, name: str) -> Iterator[Path]:
        """Yield a flushed copy of a file, next to the place it is for; it is removed when the block fails."""
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
        objects = {**self._datastore.objects, **({image_id: entry} if entry else {})}
        if entry is None:
            objects.pop(image_id, None)
        changed = self._datastore.model_copy(update={"objects": objects})
        config = Path(self._datastore_config_path).absolute()
        part = part_of(config)
        try:
            with storing(config):
                part.write_bytes(_as_json(changed))
                sync_file(part)
            self._journal.commit({**(replace or {}), part: config}, remove)
        except BaseException:
            discard(part)
            raise
        self._datastore = changed
        self._config_ts = _stamp(config)

    def _files_of(self, folder: str, image_id: str, extensions: Iterable[str]) -> list[Path]:
        return [Path(folder, self._filename(image_id, extension)).absolute() for extension in extensions]

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        """Take over the index if another process has changed it."""
        config = Path(self._datastore_config_path)
        written = _stamp(config)
        if written in (None, self._config_ts):
            return
        content = config.read_bytes()
        found = read_index(content)
        if not found.whole:  # what is known of records that could not be found is better than nothing
            found.index.objects = {**self._datastore.objects, **found.index.objects}
        found.index.base_path = self._datastore_path
        self._datastore, self._config_ts = found.index, written
        if found.damage:
            self._repair(config, content, found.damage)

    def _repair(self, config: Path, content: bytes, damage: Sequence[str]) -> None:
        """Log what is left out, keep the damaged index under another name, and write one in order."""
        for line in damage:
            logger.error("%s: %s", config.name, line)
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        try:
            kept = config.with_name(f"{config.stem}.damaged-{now}{config.suffix}")
            write_bytes(kept, content)
            logger.error("%s: the damaged index is kept as %s", config.name, kept.name)
            self._update_datastore_file()
        except StorageError as error:
            logger.error("The index stays damaged on the disk: %s", error)

    def _update_datastore_file(self, lock: bool = True) -> None:
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
        """Bring the index in line with the files that are there."""
        with self._up_to_date():
            objects = {image: self._present(image, entry) for image, entry in self._datastore.objects.items()}
            found = {image: entry for image, entry in objects.items() if entry}
            for image, extension in self._volumes(self._datastore.image_path()):
                found.setdefault(image, ImageLabelModel(image=self._new(image, extension)))
            labels = Path(self._datastore.label_path(None))
            for tag in sorted(path.name for path in labels.iterdir() if path.is_dir()) if labels.is_dir() else ():
                for image, extension in self._volumes(self._datastore.label_path(tag)):
                    if image not in found:
                        logger.warning("Label %s (%s) has no image and is ignored", image, tag)
                    elif tag not in found[image].labels:
                        found[image].labels[tag] = self._new(image, extension)
            if found == self._datastore.objects and os.path.exists(self._datastore_config_path):
                return
            self._datastore = self._datastore.model_copy(update={"objects": found})
            try:
                self._update_datastore_file()
            except StorageError as error:
                logger.warning("Files that are new or gone are known until the server ends: %s", error)

    def _present(self, image: str, entry: ImageLabelModel) -> ImageLabelModel | None:
        """The record of an image without the labels whose file is gone; None when its own file is gone."""
        model = self._datastore
        if not os.path.exists(os.path.join(model.image_path(), self._filename(image, entry.image.ext))):
            logger.info("Image %s is gone", image)
            return None
        labels = {
            tag: label
            for tag, label in entry.labels.items()
            if os.path.exists(os.path.join(model.label_path(tag), self._filename(image, label.ext)))
        }
        return ImageLabelModel(image=entry.image, labels=labels)

    def _volumes(self, folder: str) -> Iterator[tuple[str, str]]:
        """Id and extension of each volume in a folder."""
        names = self._list_files(folder, self._extensions) if os.path.isdir(folder) else {}
        for name in sorted(names):
            if not name.startswith("."):
                yield self._to_id(name)

    def _new(self, image: str, extension: str) -> DataModel:
        return DataModel(ext=extension, info={"ts": int(time.time()), "name": self._filename(image, extension)})

    def _to_id(self, file: str) -> tuple[str, str]:
        extension = file_extension(file)
        return (file[: -len(extension)], extension) if extension else super()._to_id(file)

    def _watch(self) -> None:
        """Refresh whenever a file comes or goes, as MONAI Label does."""
        model = self._datastore
        tags = {*model.tags(), DefaultLabelTag.FINAL.value, DefaultLabelTag.ORIGINAL.value}
        folders = [model.image_path(), *(model.label_path(tag) for tag in sorted(tags))]
        patterns = [os.path.join(folder, pattern) for folder in folders for pattern in self._extensions]
        patterns.append(self._datastore_config_path)
        self._handler = FolderEvents(patterns, self._on_any_event)
        self._observer = PollingObserver() if self._is_on_mount(model.image_path()) else Observer()
        try:
            self._observer.schedule(self._handler, recursive=True, path=self._datastore_path)
            self._observer.start()
        except OSError as error:
            logger.error("Files that others put into the folder are not noticed until a restart: %s", error)

    def _on_any_event(self, event: Any) -> None:
        paths = [path for path in (event.src_path, event.dest_path) if path]
        if not all(os.path.basename(path).startswith(".") for path in paths):
            super()._on_any_event(event)


def _as_json(model: LocalDatastoreModel) -> bytes:
    return json.dumps(model.model_dump(exclude={"base_path"}), indent=2, default=str, allow_nan=False).encode()


def _stamp(file: Path) -> tuple[int, int] | None:
    """What changes whenever a file is replaced: its time (ns) and inode; None when there is none."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_ino
