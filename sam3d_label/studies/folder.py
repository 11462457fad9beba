"""A studies folder in the layout of MONAI Label's local datastore: images, labels by tag, and a list of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sam3d_label.errors import Sam3dError
from sam3d_label.image.listing import FolderReader, end_of
from sam3d_label.io import locked, write_text
from sam3d_label.studies.journal import Journal

LISTING, LOCK, KEPT = "datastore_v2.json", ".lock", ".sam3d"
"""The file that lists images and labels, the lock for changes to it, and the folder for other records."""

FINAL = "final"
"""Tag of the labels that people have saved."""


class StoredFile(BaseModel):
    """A file of the folder.

    Attributes:
        ext: End of its name, which begins with the id of its image.
        info: Its record.
    """

    ext: str = ""
    info: Mapping[str, object] = {}


class StudyImage(BaseModel):
    """An image and its labels by tag."""

    image: StoredFile
    labels: dict[str, StoredFile] = {}


class StudiesListing(BaseModel):
    """The content of the folder.

    Attributes:
        images_dir: Folder of the images, under the studies.
        labels_dir: Folder of a folder for each tag.
        objects: Images by id.
    """

    model_config = ConfigDict(extra="allow")
    name: str = "new-dataset"
    description: str = "New Dataset"
    images_dir: str = "."
    labels_dir: str = "labels"
    objects: dict[str, StudyImage] = {}


class Studies:
    """A studies folder; a server may be running on it.

    Args:
        folder: Made when something is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._journal = Journal(self.folder.absolute())

    def read(self) -> StudiesListing:
        """Return the list, without missing files, and with the files that are not listed yet.

        Raises:
            Sam3dError: There is no such folder, or its listing is damaged.
        """
        if not self.folder.is_dir():
            raise Sam3dError(f"{self.folder} is not a folder of studies")
        if self._journal.path.exists():
            with locked(self.folder / LOCK):
                self._journal.recover()
        listing = self._listed()
        known = {image: found for image, found in listing.objects.items() if self.image_file(listing, image).is_file()}
        for image, extension in _files(self.folder / listing.images_dir):
            known.setdefault(image, StudyImage(image=StoredFile(ext=extension)))
        listing.objects = known
        labels = self.folder / listing.labels_dir
        for tag in sorted(path.name for path in labels.iterdir() if path.is_dir()) if labels.is_dir() else ():
            for image, extension in _files(labels / tag):
                if image in known:
                    known[image].labels.setdefault(tag, StoredFile(ext=extension))
        for image, found in known.items():
            for tag in [tag for tag in found.labels if not self.label_file(listing, image, tag).is_file()]:
                del found.labels[tag]
        return listing

    def absent_labels(self) -> list[tuple[str, str]]:
        """Return image and tag of each listed label without a file here, such as one on a DICOM server only."""
        listing = self._listed()
        tags = [(image, tag) for image, found in listing.objects.items() for tag in found.labels]
        return [(image, tag) for image, tag in sorted(tags) if not self.label_file(listing, image, tag).is_file()]

    def unusable_labels(self, listing: StudiesListing, tag: str) -> list[tuple[str, str]]:
        """Return image and reason of each label file of a tag that is damaged and whose image is listed."""
        folder = self.folder / listing.labels_dir / tag
        if not folder.is_dir():
            return []
        found = FolderReader().read(folder)
        files = sorted((image, image + extension) for image, extension in found.unusable.items())
        return [(image, found.skipped[file]) for image, file in files if image in listing.objects]

    @contextmanager
    def changing(self) -> Iterator[StudiesListing]:
        """Yield the list for changes, and write it when the block ends; other processes wait.

        Raises:
            Sam3dError: The listing is damaged.
            OSError: The folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / LOCK):
            self._journal.recover()
            listing = self._listed()
            before = listing.model_dump_json()
            yield listing
            if listing.model_dump_json() != before:
                write_text(self.folder / LISTING, listing.model_dump_json(indent=2))

    def image_file(self, listing: StudiesListing, image: str) -> Path:
        """Return where a listed image is."""
        return self.folder / listing.images_dir / f"{image}{listing.objects[image].image.ext}"

    def label_file(self, listing: StudiesListing, image: str, tag: str = FINAL) -> Path:
        """Return where a listed label is."""
        return self.folder / listing.labels_dir / tag / f"{image}{listing.objects[image].labels[tag].ext}"

    def _listed(self) -> StudiesListing:
        path = self.folder / LISTING
        try:
            return StudiesListing.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return StudiesListing()
        except ValidationError as error:
            raise Sam3dError(
                f"{path} is damaged: start the server, which keeps the good records, or restore a backup:"
                f" {_faults(error)}"
            ) from error


def image_id(file: Path) -> str | None:
    """Return the id under which a file's image is known; None when the file is no image that the server takes."""
    end = end_of(file.name)
    return file.name[: -len(end)] if end and not file.name.startswith(".") else None


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """Return id and extension of each image file in a folder."""
    yield from sorted(FolderReader().read(folder).volumes.items())


def _faults(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]
