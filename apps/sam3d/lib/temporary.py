"""Where files lie that the server deletes once they are sent or taken over."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sam3d_label.io import storing


def new_answer(extension: str) -> str:
    """Path of a new, empty file for an answer.

    It lies in a folder of its own: MONAI Label's client keeps an answer under the server's name in the folder for
    temporary files, and on the same machine that would be the file which the server deletes.
    """
    folder = _answers()
    with storing(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor, file = tempfile.mkstemp(suffix=extension, dir=folder)
        os.close(descriptor)
    return file


def is_temporary(file: str) -> bool:
    """Whether a file is an upload or an answer, and nobody's own."""
    return Path(file).parent in (Path(tempfile.gettempdir()), _answers())


def _answers() -> Path:
    return Path(tempfile.gettempdir(), f"sam3d-results-{os.getuid()}")
