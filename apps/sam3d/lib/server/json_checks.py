"""JSON from a client, read strictly: what comes through can be stored, logged and read again by any JSON parser.

Python's own parser accepts NaN, numbers of any size, keys that are given twice, texts that cannot be encoded, and
nesting until its stack is full. Each of these made a later read fail for every user.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import NoReturn

from pydantic import JsonValue

from lib.configs.limits import RequestLimits
from sam3d_label.errors import Sam3dError

STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
"""A text, which is passed over, or one of the characters that nest and separate values.

A text without its closing quote ends with the input: were it no match, the search would start again at every quote.
"""

LARGEST = 2**63
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Control characters except tab and line breaks, and halves of a surrogate pair, which UTF-8 cannot hold."""


class JsonError(Sam3dError):
    """Rejected JSON; the message names the field, what is wrong and how to fix it."""


def read_json(text: str | bytes, limits: RequestLimits, name: str = "The body") -> JsonValue:
    """Parse JSON that a client sent.

    Args:
        text: The JSON.
        limits: What it may hold at most.
        name: Where it was sent, for messages: `params`, `info`, `The body`.

    Raises:
        JsonError: It is not JSON, exceeds a limit, or holds a value that JSON or UTF-8 cannot hold.
    """
    decoded = _decode(text, limits, name)
    _check_structure(decoded, limits, name)
    try:
        value = json.loads(
            decoded,
            parse_constant=lambda constant: _not_a_number(constant, name),
            parse_float=lambda digits: _finite(digits, name),
            parse_int=lambda digits: _integer(digits, name),
            object_pairs_hook=lambda pairs: _object(pairs, name),
        )
    except json.JSONDecodeError as error:
        raise JsonError(f"{name}: this is not JSON: {error}") from None
    for item in _texts(value):
        check_text(item, limits, name)
    return value


def read_object(
    text: str | bytes, limits: RequestLimits, name: str = "The body", example: str = "{}"
) -> dict[str, JsonValue]:
    """Parse a JSON object that a client sent; an empty text is an empty object.

    Args:
        text: The JSON.
        limits: What it may hold at most.
        name: Where it was sent, for messages.
        example: What it could be, for the message that it is something else.

    Raises:
        JsonError: As `read_json`, or it is not an object.
    """
    value = read_json(text, limits, name) if text.strip() else {}
    if not isinstance(value, dict):
        raise JsonError(f"{name} must be a JSON object, such as {example}")
    return value


def check_text(text: str, limits: RequestLimits, name: str) -> str:
    """Let a text through that can be stored and shown.

    Raises:
        JsonError: It is too long, or holds control characters or half a surrogate pair.
    """
    if len(text) > limits.max_text:
        raise JsonError(
            f"{name}: a text of {len(text)} characters is longer than the {limits.max_text} that are allowed"
            " (--conf max_text)"
        )
    if found := FORBIDDEN.search(text):
        raise JsonError(f"{name}: a text holds the character U+{ord(found[0]):04X}, which is not allowed: remove it")
    return text


def _decode(text: str | bytes, limits: RequestLimits, name: str) -> str:
    if len(text) > limits.max_json_bytes:
        raise JsonError(
            f"{name}: {len(text)} bytes of JSON are more than the {limits.max_json_kb} KiB that are allowed"
            " (--conf max_json_kb)"
        )
    try:
        return text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError:
        raise JsonError(f"{name}: this is not JSON: it is not encoded as UTF-8") from None


def _check_structure(text: str, limits: RequestLimits, name: str) -> None:
    """Count nesting and values before the parser allocates anything for them."""
    depth, items = 0, 1
    for match in STRUCTURE.finditer(text):
        token = match[0]
        if token in "[{":
            depth += 1
            items += 1
        elif token in "]}":
            depth -= 1
        elif token == ",":
            items += 1
        if depth > limits.max_json_depth:
            raise JsonError(
                f"{name}: JSON nested more than {limits.max_json_depth} levels is not allowed (--conf max_json_depth)"
            )
        if items > limits.max_json_items:
            raise JsonError(f"{name}: more than {limits.max_json_items} values are not allowed (--conf max_json_items)")


def _not_a_number(constant: str, name: str) -> NoReturn:
    raise JsonError(f"{name}: {constant} is not JSON: send a finite number or null")


def _finite(digits: str, name: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise JsonError(f"{name}: {digits[:40]} is too large: send a number below 1.8e308")
    return value


def _integer(digits: str, name: str) -> int:
    if len(digits) > 20 or not -LARGEST <= int(digits) < LARGEST:
        raise JsonError(f"{name}: {digits[:40]} is too large: send an integer of at most 64 bits")
    return int(digits)


def _object(pairs: list[tuple[str, JsonValue]], name: str) -> dict[str, JsonValue]:
    value: dict[str, JsonValue] = {}
    for key, item in pairs:
        if key in value:
            raise JsonError(f"{name}: the key {key[:100]!r} is given twice: send it once")
        value[key] = item
    return value


def _texts(value: object) -> Iterator[str]:
    """Yield every text in a value, keys included; the depth is limited before this is called."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
