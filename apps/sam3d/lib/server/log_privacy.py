"""Filter the server's log: JSON lines with the request id, without data that could identify a patient.

MONAI Label and libraries log ids of images, file names, requests and labels at level INFO. Of their records only
warnings and errors are kept, with quoted texts and paths replaced. The output of background processes names cases, so
it goes to the details of the task, for those who may see the images, and not to the log.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import traceback
import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from lib.request_context import current_request

OWN = ("lib", "main", "sam3d", "sam3d_label")
"""Loggers of this project. Their messages pass ids of images as arguments (`"%s is gone", image`), which are hashed."""

SERVER = ("uvicorn", "uvicorn.error")
"""Loggers whose records below WARNING are about starting and stopping."""

DROPPED = ("uvicorn.access",)
"""Loggers that write paths and queries; `sam3d.requests` replaces them."""

WARNINGS = "py.warnings"
"""Logger of Python's warnings."""

REDIRECTED = ("uvicorn", "uvicorn.error", "uvicorn.access", "task_train", "task_batch_infer", "task_scoring")
"""Loggers with their own handlers; they use the root's instead, so that a single handler rotates the file."""

PLACEHOLDER = "…"
ESCAPED = "backslashreplace"
"""How `codecs` writes what an encoding lacks."""

LONGEST = 4000
"""Characters of a message that are logged, since the patterns take long on very long texts."""

QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|«[^»\n]*»")
PATH = re.compile(r"(?:[A-Za-z]+://|\b[A-Za-z]:\\|/|\\\\|~/)[^\s'\",;()\[\]{}<>]+")
FILE = re.compile(r"[^\s'\"/=(\[]+\.(?:nii|nrrd|mha|mhd|dcm|seg|gz)\b[^\s'\",;:)\]]*", re.IGNORECASE)
OWN_FILE = re.compile(r"(?:datastore_v2|ledger|journal|scores|card|clicks|keys)[\w.-]*$")
UID = re.compile(r"\b\d+(?:\.\d+){5,}\b")


def protect_logs() -> None:
    """Let every handler of the process write only what may be in a log; calling it again changes nothing."""
    for name in REDIRECTED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("sam3d.requests").setLevel(logging.INFO)
    warnings.showwarning = log_warning
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.StreamHandler) or any(isinstance(each, Guard) for each in handler.filters):
            continue
        is_file = isinstance(handler, logging.FileHandler)
        if not is_file and type(handler) is not logging.StreamHandler:
            continue  # a handler of a library or of a test, which keeps records elsewhere
        handler.addFilter(Guard())
        handler.setFormatter(JsonLines() if is_file else Console(handler.formatter))
        write_any_text(handler)


def log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """Log kind and place of a warning of Python, as `warnings.showwarning`.

    Its text may hold any value of a file: pydicom's warnings quote names and dates.
    """
    place = Path(filename)
    logging.getLogger(WARNINGS).warning(
        "%s in %s.%s, line %d", category.__name__, place.parent.name, place.stem, lineno
    )


def write_any_text(handler: logging.StreamHandler[TextIO]) -> None:
    """Let a handler write every character, also in the C locale: files as UTF-8, the console with escapes.

    A record that cannot be written is lost, and `logging` would print it to the standard error as it was given.
    """
    if isinstance(handler, logging.FileHandler):
        handler.encoding, handler.errors = "utf-8", ESCAPED  # for the files that a rotation opens
    if isinstance(handler.stream, io.TextIOWrapper):
        encoding = "utf-8" if isinstance(handler, logging.FileHandler) else handler.stream.encoding
        handler.stream.reconfigure(encoding=encoding, errors=ESCAPED)


class Guard(logging.Filter):
    """Lets a record pass that this project, or a warning or error that a library, has written."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the handler may write the record."""
        if record.name in DROPPED:
            return False
        return record.levelno >= logging.WARNING or record.name in SERVER or is_own(record)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message and request id; a request with its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return json.dumps(describe_record(record), ensure_ascii=False)


class Console(logging.Formatter):
    """A request as JSON; any other record as text in the format of the handler, without what may not be in a log.

    Args:
        base: The formatter that the handler had.
    """

    def __init__(self, base: logging.Formatter | None) -> None:
        super().__init__()
        self._base = base or logging.Formatter("[%(asctime)s] [%(levelname)s] (%(name)s) - %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback of an exception."""
        fields = describe_record(record)
        if hasattr(record, "request"):
            return json.dumps(fields, ensure_ascii=False)
        clean = logging.makeLogRecord({**record.__dict__, "msg": fields["message"], "args": None})
        clean.exc_info = clean.exc_text = clean.stack_info = None
        text = self._base.format(clean)
        if "request_id" in fields:
            text += f" [request {fields['request_id']}]"
        return "\n".join([text, *([str(fields["traceback"])] if "traceback" in fields else [])])


def describe_record(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of a record.

    Args:
        record: What was logged.
    """
    time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
    request = current_request()
    fields: dict[str, object] = {"time": time, "level": record.levelname, "logger": record.name}
    if isinstance(about := getattr(record, "request", None), dict):
        return {**fields, "event": "request", **about}
    fields["message"] = own_message(record) if is_own(record) else scrub(record.getMessage())
    if request is not None:
        fields["request_id"] = request.id
    if record.exc_info and record.exc_info[1] is not None:
        fields["traceback"] = traceback_of(record.exc_info[1])
    return fields


def is_own(record: logging.LogRecord) -> bool:
    """Return whether a logger of this project wrote a record."""
    return record.name.split(".")[0] in OWN


def own_message(record: logging.LogRecord) -> str:
    """Return the message of a record of this project: texts among its arguments are hashed, errors scrubbed.

    Args:
        record: What was logged.
    """
    arguments = record.args if isinstance(record.args, tuple) else (record.args,) if record.args else ()
    text = str(record.msg) % tuple(map(hide_names, arguments)) if arguments else str(record.msg)
    text = without_values(text[:LONGEST])
    for pattern in (FILE, UID):
        text = pattern.sub(PLACEHOLDER, text)
    return text


def hide_names(value: object) -> object:
    """Return an argument of a message as the log shows it: `#` and the start of a SHA-256, the same for the same image.

    Args:
        value: A number, or the name of one of the server's own files, is shown as it is.
    """
    if value is None or isinstance(value, int | float) or (isinstance(value, str) and OWN_FILE.search(value)):
        return value
    if isinstance(value, BaseException):
        return scrub(str(value))
    return f"#{hashlib.sha256(str(value).encode(errors='replace')).hexdigest()[:8]}"


def without_values(text: str) -> str:
    """Return a text without what the client sent in the URL of the current request."""
    request = current_request()
    for value in request.secrets if request is not None else ():
        text = text.replace(value, PLACEHOLDER)
    return text


def scrub(text: str) -> str:
    """Return a text of a library without quoted texts, paths, file names, DICOM UIDs and what the client sent.

    Args:
        text: A message of a record or of an exception.
    """
    text = without_values(text[:LONGEST])
    for pattern in (QUOTED, PATH, FILE, UID):
        text = pattern.sub(PLACEHOLDER, text)
    return text


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception and of its causes, with scrubbed messages.

    Args:
        error: The exception.
    """
    parts: list[str] = []
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        frames = "".join(traceback.format_tb(each.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{type(each).__name__}: {scrub(str(each))}")
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return "\n\nThe above exception was the cause of:\n\n".join(reversed(parts))
