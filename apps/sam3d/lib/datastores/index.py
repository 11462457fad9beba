"""The datastore's index, read so that one bad record never hides the good ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastoreModel

from lib.datastores.metadata import fault

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)
LEVELS = 6
"""Objects inside one another down to a single value about a label: index, objects, image, labels, tag, info."""

NOTHING = object()


@dataclass
class IndexContent:
    """The content of an index.

    Attributes:
        index: The good records.
        damage: What was left out and why, a line each; empty for an index in order.
        whole: Whether the file is one JSON object; else there may have been records that could not be found.
        format: Its format number, such as gone.json has; None for the index, whose format is MONAI Label's own.
    """

    index: LocalDatastoreModel
    damage: list[str] = field(default_factory=list)
    whole: bool = True
    format: object = None


def read_index(content: bytes) -> IndexContent:
    """Read an index, leaving out what cannot be used.

    Args:
        content: Of the file.
    """
    found = IndexContent(LocalDatastoreModel(name="new-dataset", description="New Dataset", images_dir="."))
    text = content.decode("utf-8", errors="replace")
    try:
        read: object = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        found.whole = False
        found.damage.append(f"the index is damaged ({type(error).__name__}: {error}); its good records are kept"[:300])
        read = _salvage(text, LEVELS, "index", found.damage)
    if not isinstance(read, Mapping):
        found.damage.append("the index is not a JSON object")
        found.whole, read = False, {}
    found.format = read.get("format")
    for key in ("name", "description", "images_dir", "labels_dir"):
        if isinstance(read.get(key), str) and fault(read[key]) is None:
            setattr(found.index, key, read[key])
        elif key in read:
            found.damage.append(f"{key} is not a text")
    objects = _object(read.get("objects"), "objects", found.damage)
    for image, record in objects.items():
        entry = _image(image, record, found.damage)
        if entry:
            found.index.objects[image] = entry
    return found


def _image(image: str, record: object, damage: list[str]) -> ImageLabelModel | None:
    if not _names_a_file(image) or not isinstance(record, Mapping):
        damage.append(f"image {image!r:.80} is no record of an image")
        return None
    stored = _file(record.get("image"), f"image {image!r:.80}", damage)
    if stored is None:
        return None
    labels = {}
    for tag, label in _object(record.get("labels"), f"labels of {image!r:.80}", damage).items():
        where = f"label {image!r:.80}, {tag!r:.80}"
        if not _names_a_file(tag):
            damage.append(f"{where}: this is no tag")
        elif kept := _file(label, where, damage):
            labels[tag] = kept
    return ImageLabelModel(image=stored, labels=labels)


def _file(record: object, where: str, damage: list[str]) -> DataModel | None:
    """Return the record of one file; without those of its values that cannot be sent again."""
    if not isinstance(record, Mapping):
        damage.append(f"{where} is no record of a file")
        return None
    extension = record.get("ext", "")
    if not isinstance(extension, str) or set(extension) & set("/\\\0") or fault(extension):
        damage.append(f"{where} has no usable file extension")
        return None
    info = {}
    for key, value in _object(record.get("info"), f"info of {where}", damage).items():
        if reason := fault({key: value}):
            damage.append(f"{where}: {key!r:.80} is left out: {reason}")
        else:
            info[key] = value
    return DataModel(ext=extension, info=info)


def _object(value: object, where: str, damage: list[str]) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        damage.append(f"{where} is not a JSON object")
        return {}
    return value


def _names_a_file(name: str) -> bool:
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\\0") and fault(name) is None


def _salvage(text: str, levels: int, where: str, damage: list[str]) -> object:
    """Return the readable part of a JSON text that cannot be parsed as a whole; `NOTHING` if nothing can."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if levels == 0 or not text.lstrip().startswith("{"):
            damage.append(f"{where} is left out: {type(error).__name__}")
            return NOTHING
    found = {key: _salvage(value, levels - 1, f"{key!r:.80}", damage) for key, value in _members(text)}
    return {key: value for key, value in found.items() if value is not NOTHING}


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Return the keys of a JSON object and the texts of their values, found by counting brackets; it may be cut off."""
    depth, begin = 0, 0
    name: str | None = None
    key: str | None = None
    for match in TOKEN.finditer(text):
        token = match[0]
        if token in "{[":
            depth += 1
        elif token in "}]":
            depth -= 1
        if depth == 0 or (depth == 1 and token == ","):
            if key is not None:
                yield key, text[begin : match.start()]
            name = key = None
            if depth == 0:
                return
        elif depth == 1 and key is None and token == ":":
            key, begin = name, match.end()
        elif depth == 1 and key is None and token[0] == '"':
            name = _text(token)
    if key is not None:
        yield key, text[begin:]


def _text(token: str) -> str | None:
    try:
        return str(json.loads(token))
    except ValueError:
        return None
