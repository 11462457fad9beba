"""Records of images and labels: plain JSON that every later read can parse and send."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from monailabel.interfaces.datastore import DefaultLabelTag

from sam3d_label.errors import DiskFullError, Sam3dError

FINAL = DefaultLabelTag.FINAL.value

PATIENT = "patient_hash"
"""Key in the info of an image: a hash that is the same for all images of a patient."""

MAX_DEPTH = 64
"""Nesting of a stored record. Parsers and writers of JSON fail at a few hundred levels."""

MAX_BYTES = 256 * 1024
"""Size of the record of one image or label, as JSON: every change writes all records."""

MAX_INDEX_BYTES, SMALL_BYTES = 16 * 2**20, 64 * 1024
"""Size of all records, above which only images with small records can change."""

LARGEST = 2**63
SURROGATE = re.compile("[\ud800-\udfff]")


class MetadataError(Sam3dError):
    """Metadata that cannot be stored, since a later read of it would fail."""


class IndexFullError(DiskFullError):
    """A record is too large for an index that is large already."""


def require_room(index: int, record: int) -> None:
    """Check that a large record does not make a large index larger, since that slows down every request.

    Args:
        index: Bytes of the index with the record.
        record: Bytes of the record.

    Raises:
        IndexFullError: Both are too large.
    """
    if index > MAX_INDEX_BYTES and record > SMALL_BYTES:
        raise IndexFullError(
            f"The records of all images together have {index} bytes, and this image's have {record}: above"
            f" {MAX_INDEX_BYTES}, an image may have {SMALL_BYTES}. Send less metadata, or remove some"
        )


def checked(info: object, name: str = "info") -> dict[str, object]:
    """Return a copy of metadata that is safe to store.

    Args:
        info: A mapping of texts to JSON values; None for nothing.
        name: What to call it in messages.

    Raises:
        MetadataError: It is no object, too deep, too large, or holds a value that JSON or UTF-8 cannot hold.
    """
    info = info or {}
    if not isinstance(info, Mapping):
        raise MetadataError(f'{name} must be a JSON object, such as {{"label_info": [{{"name": "tumor", "idx": 1}}]}}')
    if reason := fault(info):
        raise MetadataError(f"{name} cannot be stored: {reason}")
    text = json.dumps(dict(info), default=str)
    if len(text) > MAX_BYTES:
        raise MetadataError(
            f"{name} cannot be stored: it has {len(text)} bytes as JSON, at most {MAX_BYTES} are allowed"
        )
    return dict(json.loads(text))


def fault(value: object) -> str | None:
    """Return why a value cannot be stored; None if it can.

    The walk uses no recursion, so that no nesting can exhaust the stack.
    """
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, Mapping | list | tuple):
            if depth > MAX_DEPTH:
                return f"it is nested more than {MAX_DEPTH} levels: send a flatter object"
            if isinstance(item, Mapping):
                for key in item:
                    if not isinstance(key, str):
                        return f"the key {key!r:.40} is not a text"
                    pending.append((key, depth))
                pending += [(held, depth + 1) for held in item.values()]
            else:
                pending += [(held, depth + 1) for held in item]
        elif isinstance(item, str):
            if SURROGATE.search(item):
                return "a text holds half of a surrogate pair, which UTF-8 cannot hold: remove it"
        elif isinstance(item, float):
            if not math.isfinite(item):
                return f"{item} is not JSON: send a finite number or null"
        elif isinstance(item, int) and not -LARGEST <= item < LARGEST:
            return "an integer has more than 64 bits"
    return None
