"""The ZIP archive of a datastore's labelled images."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from lib.temporary import new_answer
from sam3d_label.io import storing


def pack(cases: Iterable[Mapping[str, str]], metadata: str) -> str:
    """Write files to an archive; an incomplete one is removed.

    Args:
        cases: Path of each file of a case by the folder that it gets in the archive, such as `image`.
        metadata: Content of `metadata.json`.

    Returns:
        Path of the archive, a temporary file.

    Raises:
        FileNotFoundError: A file is gone.
        StorageError: The disk for temporary files is full.
    """
    file = new_answer(".zip")
    try:
        with storing(Path("dataset.zip")), zipfile.ZipFile(file, "w", strict_timestamps=False) as archive:
            for case in cases:
                for folder, path in case.items():
                    archive.write(path, os.path.join(folder, os.path.basename(path)))
            archive.writestr("metadata.json", metadata)
    except BaseException:
        Path(file).unlink(missing_ok=True)
        raise
    return file
