"""Checks of the paths that a command is given, before it does any work."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from sam3d_label.errors import Sam3dError

LONGEST_NAME = 255
"""Bytes of the name of a file or folder that every common file system accepts."""

MOST_NAMED = 3
"""Files that a message names."""


def require_inputs(*inputs: Path | None) -> None:
    """Check that everything that a command reads exists; None for an input that was not given.

    Raises:
        Sam3dError: A file or folder is missing.
    """
    for path in inputs:
        if path is not None and not path.exists():
            raise Sam3dError(f"{path} does not exist: check the path")


def require_suffix(output: Path, suffixes: Iterable[str], kind: str) -> None:
    """Check the suffix of a file that a command writes.

    Args:
        output: The file.
        suffixes: Those that it may have, in lower case.
        kind: What the file is, such as "a mask".

    Raises:
        Sam3dError: It has another one.
    """
    allowed = tuple(suffixes)
    if not output.name.endswith(allowed) or output.name in allowed:
        raise Sam3dError(f"{output} cannot be written: the name of {kind} ends in {', '.join(allowed)}")


def require_unused(*outputs: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Check that files can be written, and that none is overwritten without the user's consent.

    Args:
        outputs: Files that the command writes.
        overwrite: Whether they may replace others.
        inputs: Files that the command reads: these are never written to.

    Raises:
        Sam3dError: An output is an input, a folder or another output, exists although it must not be overwritten, or
            cannot be made.
    """
    for output in outputs:
        _require_possible(output)
    seen: set[Path] = set()
    for output in map(Path.absolute, outputs):
        if output in seen:
            raise Sam3dError(f"{output.name} is given for two outputs: give each its own name")
        seen.add(output)
    present = [output for output in outputs if os.path.lexists(output)]
    for output in present:
        if any(entry.exists() and output.exists() and output.samefile(entry) for entry in inputs):
            raise Sam3dError(f"{output} is what the command reads: give another file to write to")
        if output.is_dir():
            raise Sam3dError(f"{output} is a folder: give the name of a file to write")
    if present and not overwrite:
        named = ", ".join(map(str, present[:MOST_NAMED]))
        if len(present) > MOST_NAMED:
            named += f" and {len(present) - MOST_NAMED} more"
        exist, them = ("exists", "it") if len(present) == 1 else ("exist", "them")
        raise Sam3dError(f"{named} {exist}: write elsewhere, or add --overwrite to replace {them}")
    for output in outputs:
        _require_writable(output.parent)


def require_apart(outputs: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Check that nothing that a command reads is among the files and folders that it writes or replaces.

    Args:
        outputs: What it writes.
        inputs: What it reads; None for an input that was not given.

    Raises:
        Sam3dError: An input is an output, or below one.
    """
    written = [output.resolve() for output in outputs]
    for path in inputs:
        if path is not None and any(path.resolve().is_relative_to(output) for output in written):
            raise Sam3dError(f"{path} is what the command reads and would replace: give another folder to write to")


def require_folder(folder: Path) -> None:
    """Check that a folder can be written to, or made.

    Raises:
        Sam3dError: It is a file, or cannot be written to or made.
    """
    _require_possible(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise Sam3dError(f"{folder} is not a folder: give the name of a folder to write to")
    _require_writable(folder)


def _require_possible(output: Path) -> None:
    """Check that the file system, and the libraries that write volumes, accept every name of a path."""
    try:
        sizes = {part: len(part.encode()) for part in output.parts}
    except UnicodeEncodeError:
        raise Sam3dError(f"{str(output)!r} is not valid UTF-8: give another path") from None
    for part, size in sizes.items():
        if size > LONGEST_NAME:
            raise Sam3dError(f"{part[:40]}... has {size} bytes in UTF-8: a name has at most {LONGEST_NAME}")
    try:
        os.lstat(output / ("x" * LONGEST_NAME))  # with room for a temporary name
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            size = sum(sizes.values())
            raise Sam3dError(f"{str(output)[:40]}... has {size} bytes in UTF-8, too many for a path") from None


def _require_writable(folder: Path) -> None:
    """Check the nearest folder that exists already; the others are made when the command writes."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise Sam3dError(f"{existing} is not a folder, so nothing can be written below it: give another place")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise Sam3dError(f"{existing} is read-only for you: give another place to write to")
