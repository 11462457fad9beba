"""Images and their labels on disk, paired by name."""

from __future__ import annotations

import fnmatch
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam3d_label.errors import Sam3dError
from sam3d_label.image.labels import open_label, structures
from sam3d_label.image.volume import Volume

SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha")


@dataclass(frozen=True)
class EvaluationCase:
    """One image and its label; ``label`` is ``None`` when there is no file for it."""

    name: str
    image: Path
    label: Path | None


def find_cases(images: Path, labels: Path, pattern: str | None = None) -> list[EvaluationCase]:
    """Pair images and labels by name, in the order of the names.

    Args:
        images: a folder of volumes, or one file.
        labels: a folder of label files, or one file.
        pattern: globs, separated by commas, one of which the image's file name, or the case's name, must match.

    Raises:
        Sam3dError: a folder is missing, holds no such case, or a name cannot be written to a table.
    """
    for path in (images, labels):
        if not path.exists():
            raise Sam3dError(f"{path} does not exist; give the folder of the images and the folder of their labels")
    if images.is_file():
        label = labels if labels.is_file() else _label_of(images, labels, _label_files(labels))
        return [EvaluationCase(_case_name(images), images, label)]
    by_case = _label_files(labels)
    found = [EvaluationCase(_case_name(path), path, _label_of(path, labels, by_case)) for path in _volumes(images)]
    chosen = [case for case in found if _matches(case, pattern)]
    if not chosen:
        said = f"that match {pattern!r} " if pattern and found else ""
        raise Sam3dError(f"no volumes {said}in {images}; expected files that end in {', '.join(SUFFIXES)}")
    for case in chosen:
        try:
            case.name.encode()
        except UnicodeEncodeError:
            raise Sam3dError(f"the name of {str(case.image)!r} is not valid UTF-8: rename the file") from None
    return chosen


def require_value(cases: Iterable[EvaluationCase], label: int | None) -> None:
    """Check that a value is in a label, before anything is computed; label files are read until one holds it.

    Args:
        cases: as `find_cases` returns them.
        label: the value of the target; with ``None``, any but 0 is one.

    Raises:
        Sam3dError: no label file that can be read holds it.
    """
    found: set[int] = set()
    for case in cases if label is not None else ():
        if case.label is not None:
            with suppress(Sam3dError):  # an evaluation names it
                found |= set(structures(open_label(case.label)))
        if label in found:
            return
    if found:
        raise Sam3dError(f"no label holds the value {label}, only {', '.join(map(str, sorted(found)))}")


def _volumes(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        visible = not path.name.startswith(".")
        if visible and (path.is_dir() or path.name.lower().endswith(SUFFIXES)):
            yield path


def _matches(case: EvaluationCase, pattern: str | None) -> bool:
    names = (_composed(case.image.name), _composed(case.name))
    globs = _composed(pattern).split(",") if pattern is not None else ["*"]
    return any(fnmatch.fnmatchcase(name, glob) for name in names for glob in globs)


def _case_name(path: Path) -> str:
    return path.name[: len(path.name) - len(_suffix(path))]


def _suffix(path: Path) -> str:
    """Return the end of a file's name, as written, that names its format; empty for other names."""
    return next((path.name[-len(end) :] for end in SUFFIXES if path.name.lower().endswith(end)), "")


def _label_of(image: Path, labels: Path, by_case: Mapping[str, Path]) -> Path | None:
    """Return the label file of an image: that of its very name, else that of its case, however accents are encoded."""
    exact = labels / image.name
    return exact if exact.is_file() else by_case.get(_composed(_case_name(image)))


def _label_files(labels: Path) -> dict[str, Path]:
    """Return the label file of each case, its name composed; the first suffix of `SUFFIXES`, in any case, counts."""
    files = [path for path in _volumes(labels) if path.is_file()] if labels.is_dir() else []
    files.sort(key=lambda path: SUFFIXES.index(_suffix(path).lower()), reverse=True)
    return {_composed(_case_name(path)): path for path in files}


def _composed(name: str) -> str:
    """Return a name in the composed form of Unicode: systems differ in how they encode an accent."""
    return unicodedata.normalize("NFC", name)


def read_case(case: EvaluationCase, label: int | None) -> tuple[Volume, NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Return the volume of a case, its target, and the voxels that are neither target nor background.

    Returns:
        The volume; the target, bool (I, J, K); the ignored voxels, bool (I, J, K), or None where there are none.

    Raises:
        Sam3dError: there is no label, a file cannot be read, the grids differ, or the target is empty.
    """
    if case.label is None:
        raise Sam3dError(f"there is no label file with the name of {case.image.name}")
    volume = Volume.open(case.image)
    stored = open_label(case.label)
    volume.require_same_grid(stored)
    values = stored.array
    truth = (values == label) if label is not None else values > 0
    ignored = values < 0
    if not truth.any():
        raise Sam3dError("the label is empty" if label is None else f"the label holds no voxel of value {label}")
    return volume, truth, ignored if ignored.any() else None
