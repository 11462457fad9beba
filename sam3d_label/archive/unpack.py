"""Verify an archive against its manifest and unpack it to a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from sam3d_label.archive.manifest import MANIFEST, ArchivedFile, Manifest
from sam3d_label.archive.manifest import PART as PIECE
from sam3d_label.errors import Sam3dError
from sam3d_label.io import PART
from sam3d_label.model_update.versions import Versions

Show = Callable[[str, int, int], None]


def check(path: Path, progress: Show = lambda *_: None) -> Manifest:
    """Compare every file of an archive with its manifest.

    Args:
        path: The archive.
        progress: Called with (file, files done, files in all) before each file, and once at the end.

    Returns:
        The manifest.

    Raises:
        Sam3dError: It is not an archive of `export`, or a file is missing, damaged or not listed; the message names it.
    """
    with _opened(path) as (archive, manifest):
        _read(path, archive, manifest, None, progress)
    return manifest


def unpack(path: Path, folder: Path, progress: Show = lambda *_: None) -> Manifest:
    """Unpack an archive; the folder appears only when it is complete and agrees with the manifest.

    Args:
        path: The archive.
        folder: Target folder; it must not exist, or be empty.
        progress: As for `check`.

    Raises:
        Sam3dError: As for `check`, or the folder is not empty.
        OSError: The folder cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise Sam3dError(f"{folder} is not empty: give a new folder")
    folder = folder.resolve()
    part = (folder if folder.exists() else folder.parent) / f"{PART}{uuid.uuid4().hex}"
    try:
        with _opened(path) as (archive, manifest):
            part.mkdir(parents=True)
            _read(path, archive, manifest, part, progress)
        if manifest.serves:
            Versions(part / "versions").publish(manifest.serves, "export")
        _move(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _move(part: Path, folder: Path) -> None:
    """Give an unpacked folder its name; one that exists is filled, as it may be the current folder or a mount point."""
    if not folder.exists():
        os.replace(part, folder)
        return
    for entry in part.iterdir():
        os.replace(entry, folder / entry.name)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, Manifest]]:
    if not path.is_file():
        raise Sam3dError(f"{path} does not exist: give an archive that export has written")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive, _manifest(path, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise Sam3dError(f"{path} is damaged or not an archive: copy it again ({error})") from error


def _manifest(path: Path, archive: zipfile.ZipFile) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(archive.read(MANIFEST))
    except KeyError:
        raise Sam3dError(f"{path} holds no {MANIFEST}: it is not an archive that export has written") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Sam3dError(f"{MANIFEST} of {path} cannot be used: {where}: {first['msg']}") from None
    listed, held = {file.path for file in manifest.files}, set(archive.namelist()) - {MANIFEST}
    for what, names in (("lacks", listed - held), ("holds, unlisted,", held - listed)):
        if names:
            raise Sam3dError(f"{path} {what} {', '.join(sorted(names)[:3])}: copy it again, or export again")
    return manifest


def _read(path: Path, archive: zipfile.ZipFile, manifest: Manifest, out: Path | None, progress: Show) -> None:
    for done, entry in enumerate(manifest.files):
        progress(entry.path, done, len(manifest.files))
        if out is None:
            _copy(path, archive, entry, None)
            continue
        (out / entry.path).parent.mkdir(parents=True, exist_ok=True)
        with (out / entry.path).open("wb") as file:
            _copy(path, archive, entry, file)
    progress("", len(manifest.files), len(manifest.files))


def _copy(path: Path, archive: zipfile.ZipFile, entry: ArchivedFile, out: BinaryIO | None) -> None:
    digest, size = hashlib.sha256(), 0
    with archive.open(entry.path) as member:
        while size <= entry.bytes and (part := member.read(PIECE)):
            digest.update(part)
            size += len(part)
            if out:
                out.write(part)
    if size != entry.bytes or digest.hexdigest() != entry.sha256:
        raise Sam3dError(
            f"{entry.path} in {path} is damaged: its SHA-256 is not the manifest's; copy the archive again"
        )
