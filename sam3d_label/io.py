"""Durable file writes: a file appears whole or not at all, and what was reported as written survives a crash."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from sam3d_label.errors import DiskFullError, NewerFormatError, ReadOnlyError, Sam3dError, StorageError

logger = logging.getLogger(__name__)
RecordType = TypeVar("RecordType", bound="Record")
PART = ".part-"
"""Beginning of the name of a file that is being written. It is hidden, so nothing mistakes it for a finished file."""

ABANDONED = 3600.0
"""Age in seconds at which a part file is considered left over by a killed writer."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FULL_DISK = (
    "{name} cannot be stored, the disk is full; what was stored before is unchanged: free some space and try again"
)
FEW_BYTES = 2**20
"""With fewer free bytes, a failed write of a library without an errno is attributed to a full disk."""

READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}
"""Errors of file systems that cannot flush a folder; they order renames themselves."""


def part_of(path: Path) -> Path:
    """Return a new hidden name next to a file, with the file's suffix, since writers choose the format by it.

    Of a long name only the end is kept, so that the new one is not too long for the file system.
    """
    return path.with_name(f"{PART}{uuid.uuid4().hex}.{path.name[-NAME_END:]}")


NAME_END = 40
"""Characters of a name that are kept in the name of its part file; each has at most four bytes."""


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path next to `path` to write to; it replaces `path` when the block ends without an error.

    Missing folders are made. When the block has ended, the file and its name are on the disk.

    Args:
        path: The file to replace.
        durable: Whether to flush to the disk; False for temporary files, which a crash may take.

    Raises:
        StorageError: The disk is full, the folder is read-only, or the disk reports an error.
        OSError: The file cannot be written for another reason.
    """
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(path)
        try:
            yield part
            if durable and not part.is_symlink():
                sync_file(part)
            os.replace(part, path)
            if durable:
                sync_folder(path.parent)
        finally:
            discard(part)


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace a file's content as `replacing` does."""
    with replacing(path, durable=durable) as part:
        part.write_bytes(content)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file's content by UTF-8 text as `replacing` does."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def write_json(path: Path, content: object, *, indent: int | None = 2) -> None:
    """Replace a file's content by JSON as `replacing` does.

    Raises:
        ValueError: The content holds NaN or infinity, which JSON does not know.
        StorageError: As for `replacing`.
    """
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def write_record(path: Path, record: Record, *, indent: int | None = 2) -> None:
    """Replace a file's content by a record as `write_json` does."""
    write_json(path, record.model_dump(mode="json", by_alias=True), indent=indent)


class RecordPart(BaseModel):
    """Base of the parts of a record; they have the format of the record."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Record(RecordPart):
    """Base of everything that is stored or sent as JSON.

    Files of older releases have no format number, and may lack keys: a record has defaults for those. Keys that a newer
    release adds are ignored as long as the number is the same.

    Attributes:
        format: Version of the format; the default is the highest that this release reads.
    """

    format: int = 1

    @classmethod
    def parse(cls: type[RecordType], content: object, source: Path) -> RecordType:
        """Return the record that a JSON value holds.

        Args:
            content: The value.
            source: Where it is from, for the message.

        Raises:
            NewerFormatError: A newer release has written it.
            Sam3dError: It is damaged.
        """
        if isinstance(content, Mapping):
            require_format(content.get("format"), cls.model_fields["format"].default, source)
        try:
            return cls.model_validate(content)
        except (ValidationError, RecursionError) as error:
            why = complaints(error) if isinstance(error, ValidationError) else str(error)
            raise Sam3dError(DAMAGED.format(path=source, error=why)) from error


DAMAGED = "{path} is damaged, restore it from a backup or remove it: {error}"


def read_record(kind: type[RecordType], path: Path) -> RecordType | None:
    """Return the record in a JSON file; None when there is no file.

    Args:
        kind: Class of the record.
        path: The file.

    Raises:
        NewerFormatError: A newer release has written it.
        Sam3dError: It is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise Sam3dError(DAMAGED.format(path=path, error=error)) from error
    return kind.parse(content, path)


def complaints(error: ValidationError, whole: str = "all of it") -> str:
    """Return the errors of all fields in one line.

    Args:
        error: The error of a model.
        whole: What a fault of no single field is listed under.
    """
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or whole}: {e['msg']}" for e in error.errors())


def read_object(path: Path, newest: int = 1) -> dict[str, JsonValue]:
    """Return the JSON object in a file without its format number; empty when there is no file.

    Raises:
        NewerFormatError: A newer release has written it.
        Sam3dError: It is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise Sam3dError(DAMAGED.format(path=path, error=error)) from error
    require_format(content.pop("format", None), newest, path)
    return content


def require_format(found: object, newest: int, path: Path) -> None:
    """Reject a file of a newer release; one without a format number is from an older release.

    Args:
        found: The format number in the file; None when it holds none.
        newest: The highest number that this release reads.
        path: The file, for the message.

    Raises:
        NewerFormatError: A newer release has written it.
    """
    if isinstance(found, int) and found > newest:
        raise NewerFormatError(
            f"{path} was written by a newer release of sam3d_label (format {found}; this release reads up to"
            f" {newest}): update this installation, or restore a backup that is older than the update"
        )


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only folder or a disk error into a `StorageError` that names the file and the way out.

    Raises:
        StorageError: Instead of the OSError.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        described = storage_error(error, path)
        if described is None:
            raise
        raise described from error


def storage_error(error: OSError, path: Path) -> StorageError | None:
    """Return the described error for a full disk, a read-only folder or a disk error; None for any other error."""
    if error.errno in FULL:
        return DiskFullError(FULL_DISK.format(name=path.name), error.errno)
    if error.errno in READ_ONLY:
        return ReadOnlyError(
            f"{path.name} cannot be stored, its folder is read-only for this user; nothing was changed: make the"
            " folder writable and try again",
            error.errno,
        )
    if error.errno == errno.EIO:
        return StorageError(
            f"{path.name} cannot be read or stored, the disk reports an error: check the disk and the system's log",
            error.errno,
        )
    return None


def require_space(path: Path, error: Exception) -> None:
    """Raise the error of a full disk if there is no space left for a file that a library failed to write.

    ITK, PyTorch and safetensors report a full disk as an error without an errno.

    Raises:
        DiskFullError: The disk is full.
    """
    if path.parent.is_dir() and shutil.disk_usage(path.parent).free < FEW_BYTES:
        raise DiskFullError(FULL_DISK.format(name=path.name), errno.ENOSPC) from error


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in NO_FOLDER_SYNC:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder under a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            sync_file(path)
        elif path.is_dir() and not path.is_symlink():
            sync_folder(path)
    sync_folder(folder)


def append_line(file: BinaryIO, line: bytes) -> None:
    """Add a whole line to a file or nothing, and flush it; the rest of a torn line of a killed writer is ended first.

    The caller holds the lock of the file, which is open for reading and appending without a buffer.

    Args:
        file: The file.
        line: The line with its end.

    Raises:
        OSError: It cannot be written; the file is as it was.
    """
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        line = (b"" if file.read(1) == b"\n" else b"\n") + line
    try:
        while line:
            line = line[file.write(line) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise


def discard(path: Path) -> None:
    """Remove a file if it exists; what cannot be removed, such as on a read-only disk, is left for the clean-up."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.debug("%s is left: %s", path, error)


def remove_parts(folder: Path, older_than: float = ABANDONED) -> int:
    """Remove the part files that killed writers left in a folder; return how many.

    Args:
        folder: The folder; its subfolders are not changed.
        older_than: Age in seconds; 0 where the caller holds a lock that excludes writers.
    """
    removed = 0
    for path in folder.glob(f"{PART}*") if folder.is_dir() else ():
        try:
            if time.time() - path.lstat().st_mtime >= older_than:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue
        except OSError as error:
            logger.debug("%s is left: %s", path, error)
    return removed


@contextmanager
def locked(file: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock of a file between processes.

    Where the lock file cannot be created, because the folder is read-only or the disk is full, one in the folder for
    temporary files takes its place; without that one, the block runs without a lock, as nothing can be changed.

    Args:
        file: The lock file; its folder must exist.
        timeout: Seconds to wait; -1 to wait as long as it takes.

    Raises:
        filelock.Timeout: Another process holds it.
    """
    with ExitStack() as held:
        for place in (lambda: file, lambda: _spare_lock(file)):
            try:
                held.enter_context(FileLock(place(), timeout=timeout))
                break
            except OSError as error:
                if isinstance(error, TimeoutError) or error.errno not in FULL | READ_ONLY | {errno.ENOENT}:
                    raise
                logger.debug("%s cannot be locked: %s", file, error)
        yield


def _spare_lock(file: Path) -> Path:
    folder = Path(tempfile.gettempdir(), f"sam3d-locks-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:32]}.lock"


def is_writable(folder: Path) -> bool:
    """Return whether files can be created in a folder, or in the nearest folder above that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def with_format(number: int, content: Mapping[str, object]) -> dict[str, object]:
    """Return the content with its format number as the first key."""
    return {"format": number, **content}
