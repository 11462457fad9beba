"""Small JSON files of the app that can be made again: a damaged one is reported in the log and counts as empty."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

from sam3d_label.errors import NewerFormatError, Sam3dError
from sam3d_label.io import Record, read_object, read_record, with_format, write_json

logger = logging.getLogger(__name__)
FORMAT = 1
RecordType = TypeVar("RecordType", bound=Record)
Content = TypeVar("Content")


def read_json(path: Path) -> dict[str, JsonValue]:
    """Return the object in a file; empty when there is no file or it is damaged.

    Raises:
        NewerFormatError: A newer release has written it.
    """
    return _unless_damaged(lambda: read_object(path, FORMAT)) or {}


def write_object(path: Path, content: Mapping[str, object]) -> None:
    """Replace the object in a file; numbers that JSON cannot hold become null.

    Raises:
        StorageError: It cannot be written, and what was there is unchanged.
    """
    write_json(path, finite_object(with_format(FORMAT, content)), indent=None)


def load(kind: type[RecordType], path: Path) -> RecordType | None:
    """Return the record in a file; None when there is no file or it is damaged.

    Args:
        kind: Class of the record.
        path: The file.

    Raises:
        NewerFormatError: A newer release has written it.
    """
    return _unless_damaged(lambda: read_record(kind, path))


def store(path: Path, record: Record) -> None:
    """Replace the record in a file; fields that are None are left out.

    Raises:
        StorageError: It cannot be written, and what was there is unchanged.
    """
    write_json(path, finite_object(record.model_dump(mode="json", exclude_none=True)), indent=None)


def _unless_damaged(read: Callable[[], Content | None]) -> Content | None:
    try:
        return read()
    except NewerFormatError:
        raise
    except Sam3dError as error:
        logger.warning(error)
        return None


def finite_object(content: Mapping[str, object]) -> dict[str, object]:
    """Return a JSON object with null in place of NaN and infinity."""
    return {key: finite(held) for key, held in content.items()}


def finite(value: object) -> object:
    """Return a JSON value with null in place of NaN and infinity."""
    if isinstance(value, Mapping):
        return finite_object(value)
    if isinstance(value, list | tuple):
        return [finite(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
