"""Files that the server deletes once they are sent or taken over."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sam3d_label.io import storing


def new_answer(extension: str) -> str:
    """Return the path of a new, empty file for an answer.

    It is in a separate folder: MONAI Label's client keeps an answer under the server's name in the folder for
    temporary files, and on the same machine that would be the file which the server deletes.
    """
    folder = _answers()
    with storing(folder):
        descriptor, file = tempfile.mkstemp(suffix=extension, dir=_private(folder))
        os.close(descriptor)
    return file


@contextmanager
def received_file(content: BinaryIO, suffix: str) -> Iterator[str]:
    """Yield a file with the content of an upload, readable by this user only and removed at the end.

    Args:
        content: What was uploaded.
        suffix: End of the file's name, one that the server chose: never taken from the client.

    Yields:
        Its path.
    """
    folder = _uploads()
    with storing(folder):
        descriptor, file = tempfile.mkstemp(suffix=suffix, dir=_private(folder))
    try:
        with storing(Path(file)), os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(content, copy, 2**20)
        yield file
    finally:
        Path(file).unlink(missing_ok=True)


def is_temporary(file: str) -> bool:
    """Return whether a file is an upload or an answer."""
    return Path(file).parent in (Path(tempfile.gettempdir()), _answers(), _uploads())


def _answers() -> Path:
    return Path(tempfile.gettempdir(), f"sam3d-results-{os.getuid()}")


def _uploads() -> Path:
    return Path(tempfile.gettempdir(), f"sam3d-uploads-{os.getuid()}")


def _private(folder: Path) -> Path:
    """Return a folder for temporary files that only this user can enter; made if there is none.

    Raises:
        PermissionError: Somebody else made it first, or it is open to others.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a private folder of this user: remove it, or set TMPDIR to another one")
    return folder
