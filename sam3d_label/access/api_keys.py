"""API keys of a server: a file of names, roles and salted hashes, which a running server follows."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sam3d_label.errors import Sam3dError
from sam3d_label.io import replacing

FORMAT = 1
PREFIX = "sam3d"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
KEY = re.compile(PREFIX + r"_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
RoleName = Literal["annotator", "admin"]


class ApiKeyError(Sam3dError):
    """A file of API keys that cannot be used, or a change of it that is not possible."""


class ApiKey(BaseModel):
    """A key as the file has it.

    Attributes:
        id: Part of the key that says which one it is.
        name: Name of the user or program that holds it.
        role: What they may do.
        salt: Random bytes, hexadecimal.
        hash: HMAC-SHA256 of the key's secret under the salt, hexadecimal. A slow hash is not needed, because the
            secret has 256 random bits and cannot be guessed.
        created: Date and time of its making.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern="^[0-9a-f]{12}$")
    name: str = Field(pattern=f"^{NAME.pattern}$")
    role: RoleName
    salt: str = Field(pattern="^[0-9a-f]{32}$")
    hash: str = Field(pattern="^[0-9a-f]{64}$")
    created: str


class ApiKeyFile(BaseModel):
    """Content of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()


_NO_KEY = ApiKey(id="0" * 12, name="nobody", role="annotator", salt="0" * 32, hash="0" * 64, created="")


class ApiKeys:
    """The keys in a file.

    Args:
        path: The file; it need not exist before a key is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, ApiKey] = {}

    def all(self) -> list[ApiKey]:
        """Return all keys, in the order in which they were made.

        Raises:
            ApiKeyError: The file cannot be read, is damaged, or others than its owner can read or write it.
        """
        return list(self._current().values())

    def add(self, name: str, role: RoleName) -> str:
        """Make a key and return it; the file has only its hash, so this is the one time that it can be read.

        Raises:
            ApiKeyError: The name is taken or not allowed, or the file cannot be used.
        """
        if not NAME.fullmatch(name):
            raise ApiKeyError(
                f"{name!r} is not a name for an API key: use letters, digits and . _ @ -, at most 64 in all"
            )
        identifier, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(16)
        made = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._changing():
            keys = self.all() if self.path.exists() else []
            if any(key.name == name for key in keys):
                raise ApiKeyError(f"There is an API key {name!r} in {self.path}: revoke it first, or use another name")
            new = ApiKey(id=identifier, name=name, role=role, salt=salt, hash=_hash(salt, secret), created=made)
            self._write([*keys, new])
        return f"{PREFIX}_{identifier}_{secret}"

    def revoke(self, name: str) -> None:
        """Remove a key; a running server rejects it, and ends its sessions, from the next request on.

        Raises:
            ApiKeyError: There is no such key, or the file cannot be used.
        """
        with self._changing():
            keys = self.all()
            kept = [key for key in keys if key.name != name]
            if len(kept) == len(keys):
                known = ", ".join(key.name for key in keys) or "none"
                raise ApiKeyError(f"There is no API key {name!r} in {self.path}; it has: {known}")
            self._write(kept)

    def find(self, key: str) -> ApiKey | None:
        """Return the record of a key, or None for one that is not in the file; both take the same time.

        Raises:
            ApiKeyError: The file cannot be used.
        """
        match = KEY.fullmatch(key)
        identifier, secret = match.groups() if match else ("", key)
        record = self._current().get(identifier, _NO_KEY)
        right = hmac.compare_digest(_hash(record.salt, secret), record.hash)
        return record if right and record is not _NO_KEY else None

    def has(self, identifier: str) -> bool:
        """Return whether a key is still in the file.

        Raises:
            ApiKeyError: The file cannot be used.
        """
        return identifier in self._current()

    def _current(self) -> dict[str, ApiKey]:
        try:
            state = self.path.stat()
            stamp = (state.st_mtime_ns, state.st_ino, state.st_size)
            with self._lock:
                if stamp != self._stamp:
                    _check_mode(self.path, state.st_mode)
                    content = ApiKeyFile.model_validate_json(self.path.read_bytes())
                    self._keys, self._stamp = {key.id: key for key in content.keys}, stamp
                return self._keys
        except OSError as error:
            reason = f"The file of API keys {self.path} cannot be read ({error.strerror})"
            raise ApiKeyError(f"{reason}: make one with 'python -m sam3d_label api-key add'") from None
        except ValidationError as error:
            what = error.errors()[0]
            place = ".".join(map(str, what["loc"]))
            raise ApiKeyError(
                f"{self.path} is not a file of API keys of format {FORMAT} ({place}: {what['msg']}): restore it from "
                "a backup, or delete it and make new keys"
            ) from None

    def _changing(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{self.path}.lock")

    def _write(self, keys: list[ApiKey]) -> None:
        content = json.dumps(ApiKeyFile(keys=tuple(keys)).model_dump(), indent=2)
        with replacing(self.path) as partial, open(partial, "x", opener=_private) as file:
            file.write(content)
        self._stamp = None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _check_mode(path: Path, mode: int) -> None:
    if os.name == "posix" and mode & 0o077:
        raise ApiKeyError(f"Others can read or write the file of API keys {path}: run 'chmod 600 {path}'")


def _hash(salt: str, secret: str) -> str:
    return hmac.new(bytes.fromhex(salt), secret.encode(), hashlib.sha256).hexdigest()
