"""Import public data sets into a studies folder, with named labels."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from filelock import FileLock, Timeout
from nibabel.spatialimages import SpatialImage
from pydantic import BaseModel, ConfigDict, ValidationError

from sam3d_label.errors import Sam3dError, VolumeError
from sam3d_label.image.labels import open_label, structures
from sam3d_label.image.listing import EXTENSIONS, id_fault
from sam3d_label.image.volume import Volume, last_line
from sam3d_label.io import storing, sync_file, sync_folder
from sam3d_label.studies.folder import FINAL, KEPT, StoredFile, Studies, StudiesListing, StudyImage, image_id
from sam3d_label.studies.label_names import name_fault, normal_name

FROM = "imported_from"
"""Key of an image's info that says which data set it came from."""

SCRATCH = "import-"
KITS_NAMES = {1: "kidney", 2: "tumor", 3: "cyst"}
KITS_LABELS = ("aggregated_MAJ_seg.nii.gz", "segmentation.nii.gz")
KITS_FOLDERS = (".", "data", "dataset", "kits21/data")


@dataclass(frozen=True)
class DatasetCase:
    """One image of a data set.

    Attributes:
        id: What it will be known by.
        image: Its file.
        label: File of its label; None when it has none.
    """

    id: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class PublicDataset:
    """A data set on disk.

    Attributes:
        name: What it calls itself.
        names: Names of the values in its labels, but 0.
        cases: Its images.
        channel: Which of four-dimensional images' channels to take, from 0; None where images have one.
        channels: How many channels its images have.
    """

    name: str
    names: Mapping[int, str]
    cases: Sequence[DatasetCase]
    channel: int | None = None
    channels: int = 1


@dataclass
class ImportResult:
    """The result of an import.

    Attributes:
        added: Ids of those that are new in the studies, or got their label.
        there: Ids of those that were there.
        rejected: Reasons for the rejected cases, by id.
    """

    added: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)


class _Pair(BaseModel):
    image: str
    label: str


class _Msd(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str = ""
    modality: dict[int, str]
    labels: dict[int, str]
    training: list[_Pair]
    test: list[str] = []


def open_msd(source: Path, channel: str | None = None) -> PublicDataset:
    """Return a task of the Medical Segmentation Decathlon: dataset.json, imagesTr, labelsTr, imagesTs.

    Args:
        source: Its folder.
        channel: Number, from 0, or name of the channel to take where images have several.

    Raises:
        Sam3dError: It is no such folder, or its images have several channels and none is chosen.
    """
    path = source / "dataset.json"
    try:
        description = _Msd.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Sam3dError(f"{path} does not exist: give the folder of one task, such as Task09_Spleen") from None
    except (ValidationError, UnicodeDecodeError) as error:
        wrong = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, wrong["loc"]))
        raise Sam3dError(f"{path} is not one of the Medical Segmentation Decathlon: {where} {wrong['msg']}") from None
    pairs = [(pair.image, pair.label) for pair in description.training] + [(image, None) for image in description.test]
    cases = [
        DatasetCase(image_id(Path(image)) or Path(image).name, source / image, source / label if label else None)
        for image, label in pairs
    ]
    return PublicDataset(
        name=description.name or source.resolve().name,
        names=_names(path, {value: name for value, name in description.labels.items() if value}),
        cases=cases,
        channel=_channel(description.modality, channel),
        channels=len(description.modality),
    )


def open_kits(source: Path) -> PublicDataset:
    """Open KiTS19, KiTS21 or KiTS23: case_00000/imaging.nii.gz and its segmentation, in KiTS21 the majority's.

    Args:
        source: The folder of the cases, or of the repository that holds it.

    Raises:
        Sam3dError: There are no such cases.
    """
    for folder in (source / name for name in KITS_FOLDERS):
        cases = [path for path in sorted(folder.glob("case_*")) if path.is_dir()]
        if cases:
            return PublicDataset("KiTS", KITS_NAMES, [_kits_case(case) for case in cases])
    raise Sam3dError(f"{source} holds no folders case_00000 and so on: give the folder of the cases of KiTS")


def import_data(
    data: PublicDataset,
    folder: Path,
    *,
    link: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> ImportResult:
    """Bring a data set into a studies folder; a server may be running on it.

    Image, label and records of a case appear together. Existing cases do not change, so that the same call continues an
    interrupted import and keeps the changes of annotators.

    Args:
        data: The data set.
        folder: The studies; made when missing.
        link: Make hard links instead of copies of files that are used unchanged.
        progress: Called with (id, cases done, cases in all) before each case, and once at the end.

    Raises:
        Sam3dError: The folder's listing is damaged, or another import is running there.
        OSError: The folder cannot be written.
    """
    studies, result = Studies(folder), ImportResult()
    with _scratch(folder) as scratch:
        for done, case in enumerate(data.cases):
            progress(case.id, done, len(data.cases))
            try:
                new = _import(case, data, studies, scratch, link, seen={*result.added, *result.present})
            except VolumeError as error:
                result.rejected[case.id] = str(error)
                continue
            (result.added if new else result.present).append(case.id)
    progress("", len(data.cases), len(data.cases))
    return result


def _import(
    case: DatasetCase, data: PublicDataset, studies: Studies, scratch: Path, link: bool, seen: set[str]
) -> bool:
    """Import a case; False when there is nothing to do."""
    if reason := id_fault(case.id):
        raise VolumeError(f"the server does not accept this name as an image id: {reason}; rename the file")
    if case.id in seen:
        raise VolumeError("another case of the data set has this name")
    with studies.changing() as listing:
        if _is_imported(case, data, studies, listing):
            return False
    image, volume = _stage_image(case, data, scratch, link)
    volume.require_plausible_size()
    label = _stage_label(case, data, volume, scratch, link) if case.label else None
    with studies.changing() as listing:
        labelled = label is not None and not _has_label(case, studies, listing)
        image_file = _existing_file(studies.folder / listing.images_dir, case.id, volume, "image")
        label_file = (
            _existing_file(_labels(studies, listing), case.id, label[1], "label") if label and labelled else None
        )
        new = _list_image(case, data, studies, listing, image, image_file)
        if label and labelled:
            _list_label(case, data, studies, listing, label[0], label_file)
        return labelled or new


def _list_image(
    case: DatasetCase,
    data: PublicDataset,
    studies: Studies,
    listing: StudiesListing,
    staged: Path,
    existing: Path | None,
) -> bool:
    """List an image, and move it to its place unless the studies hold it; False when it was listed."""
    known = listing.objects.get(case.id)
    place = existing or studies.folder / listing.images_dir / f"{case.id}{_extension(staged)}"
    if existing is None:
        _put(staged, place)
    entry = known or StudyImage(image=StoredFile())
    entry.image.ext = _extension(place)
    entry.image.info = {"ts": int(time.time()), **entry.image.info, "name": place.name, FROM: data.name}
    listing.objects[case.id] = entry
    return known is None


def _list_label(
    case: DatasetCase,
    data: PublicDataset,
    studies: Studies,
    listing: StudiesListing,
    staged: Path,
    existing: Path | None,
) -> None:
    """List a label, and move it to its place unless the studies hold it."""
    place = existing or _labels(studies, listing) / f"{case.id}{_extension(staged)}"
    if existing is None:
        _put(staged, place)
    info = {"ts": int(time.time()), "name": place.name, "label_info": _label_info(data), FROM: data.name}
    listing.objects[case.id].labels[FINAL] = StoredFile(ext=_extension(place), info=info)


def _labels(studies: Studies, listing: StudiesListing) -> Path:
    return studies.folder / listing.labels_dir / FINAL


def _has_label(case: DatasetCase, studies: Studies, listing: StudiesListing) -> bool:
    """Return whether a label is listed and there; it may be an annotator's."""
    known = listing.objects.get(case.id)
    return known is not None and FINAL in known.labels and studies.label_file(listing, case.id).is_file()


def _is_imported(case: DatasetCase, data: PublicDataset, studies: Studies, listing: StudiesListing) -> bool:
    known = listing.objects.get(case.id)
    if known is None or known.image.info.get(FROM) != data.name or not studies.image_file(listing, case.id).is_file():
        return False
    return case.label is None or _has_label(case, studies, listing)


def _stage_image(case: DatasetCase, data: PublicDataset, scratch: Path, link: bool) -> tuple[Path, Volume]:
    """Return a file with one channel of a case's image, ready to be moved into the studies, and its volume."""
    _require_file(case.image)
    if data.channel is None:
        volume = Volume.open(case.image)
        return _stage(case.image, scratch, "image", link), volume
    staged = scratch / "image.nii.gz"
    staged.unlink(missing_ok=True)
    try:
        stored = nib.load(case.image)
        assert isinstance(stored, SpatialImage), f"it is a {type(stored).__name__}"
        if stored.ndim != 4 or stored.shape[3] != data.channels:
            raise VolumeError(f"{case.image} is {stored.shape}: dataset.json lists {data.channels} channels")
        nib.save(stored.slicer[..., data.channel], staged)
    except VolumeError:
        raise
    except Exception as error:
        raise VolumeError(f"{case.image} cannot be read as a volume: {last_line(error)}") from error
    return staged, Volume.open(staged)


def _stage_label(
    case: DatasetCase, data: PublicDataset, volume: Volume, scratch: Path, link: bool
) -> tuple[Path, Volume]:
    """Return a copy of a case's label, ready to be moved into the studies, and its volume."""
    assert case.label is not None
    _require_file(case.label)
    label = open_label(case.label)
    volume.require_same_grid(label)
    unnamed = [value for value in structures(label) if value not in data.names]
    if unnamed:
        names = ", ".join(f"{value} = {name}" for value, name in data.names.items())
        values = ", ".join(map(str, unnamed))
        raise VolumeError(f"the label holds the values {values}, but the data set names only {names}")
    return _stage(case.label, scratch, "label", link), label


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise VolumeError(f"{path} is missing: download the data set again from its site")
    if image_id(path) is None:
        raise VolumeError(f"{path.name} is not supported: its name must end in {', '.join(EXTENSIONS)}")


def _stage(source: Path, scratch: Path, name: str, link: bool) -> Path:
    staged = scratch / f"{name}{_extension(source)}"
    staged.unlink(missing_ok=True)
    if not link:
        shutil.copyfile(source, staged)
        return staged
    try:
        os.link(source.resolve(), staged)
    except OSError as error:
        raise Sam3dError(f"{source} cannot be linked from the studies; leave out --link: {error.strerror}") from error
    return staged


def _existing_file(folder: Path, image: str, volume: Volume, what: str) -> Path | None:
    """Return the file of an id in a folder, such as after a kill; None when there is none.

    Every file whose name gives this id counts, whatever its suffix and whether it is listed or not, since the server
    uses one file for each id.

    Args:
        folder: The folder.
        image: The id.
        volume: What the file must hold.
        what: What the folder holds, for the message.

    Raises:
        VolumeError: A file of that id holds something else.
    """
    found = [path for path in sorted(folder.iterdir()) if image_id(path) == image] if folder.is_dir() else []
    for path in found:
        if not _is_same(path, volume):
            raise VolumeError(f"the studies hold another {what} of this name, {path.name}: move it away or rename it")
    return found[0] if found else None


def _is_same(path: Path, volume: Volume) -> bool:
    try:
        stored = Volume.open(path)
    except VolumeError:
        return False
    return np.array_equal(stored.affine, volume.affine) and np.array_equal(stored.array, volume.array)


def _put(staged: Path, place: Path) -> None:
    with storing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        sync_file(staged)
        os.replace(staged, place)
        sync_folder(place.parent)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Create a folder next to the studies for unfinished files, and remove those of killed imports."""
    kept = folder / KEPT
    kept.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(kept / ".import.lock", timeout=0):
            for left in kept.glob(f"{SCRATCH}*"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=kept, prefix=SCRATCH) as scratch:
                yield Path(scratch)
    except Timeout:
        raise Sam3dError(f"another import into {folder} is running: wait until it ends") from None


def _label_info(data: PublicDataset) -> list[dict[str, object]]:
    return [{"name": name, "idx": value} for value, name in sorted(data.names.items())]


def _extension(file: Path) -> str:
    name = image_id(file)
    assert name is not None
    return file.name[len(name) :]


def _kits_case(folder: Path) -> DatasetCase:
    labels = [folder / name for name in KITS_LABELS if (folder / name).is_file()]
    return DatasetCase(folder.name, folder / "imaging.nii.gz", labels[0] if labels else None)


def _names(path: Path, names: Mapping[int, str]) -> dict[int, str]:
    """Return the names of a data set's structures.

    Raises:
        Sam3dError: The server does not accept one of them as a label, or `--conf labels` cannot hold it.
    """
    accepted: dict[int, str] = {}
    for value, name in names.items():
        reason = name_fault(name) or ("it holds a comma, which separates labels" if "," in name else None)
        if normal_name(name) in accepted.values():
            reason = "another structure has this name"
        if reason:
            raise Sam3dError(f"{path} calls value {value} {name[:60]!r}, which cannot be a label: {reason}; change it")
        accepted[value] = normal_name(name)
    return accepted


def _channel(modality: Mapping[int, str], wanted: str | None) -> int | None:
    """Return the number of the channel that a user means; None if there is only one."""
    description = ", ".join(f"{number} {name}" for number, name in sorted(modality.items()))
    if wanted is None:
        if len(modality) > 1:
            raise Sam3dError(f"the images have {len(modality)} channels ({description}): choose one with --channel")
        return None
    numbers = [number for number, name in modality.items() if wanted.lower() in (str(number), name.lower())]
    if len(numbers) != 1:
        raise Sam3dError(f"--channel {wanted}: there is no such channel; choose one of {description}")
    return numbers[0] if len(modality) > 1 else None
