"""Sessions that cannot be used to reach files outside their folder, and that say when they are gone."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from fastapi import HTTPException
from monailabel.utils.sessions import SessionInfo, Sessions

from lib.configs.limits import RequestLimits
from lib.server.uploads.archives import Upload
from lib.server.uploads.files import store_image
from lib.server.uploads.quota import SessionQuota, SessionUsage
from sam3d_label.errors import VolumeError
from sam3d_label.io import storing, write_text

logger = logging.getLogger(__name__)
SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
UNFINISHED = ".new-"
"""Beginning of the name of a session's folder while it is made; no id looks like this."""

META = "meta.info"
OWNER, SIZE = "owner", "bytes"
"""Keys of a session's `meta`: who made it, and what its folder holds."""

HOUR = 3600


class SafeSessions(Sessions):
    """MONAI Label's sessions, with checks of ids and content.

    The ids come from clients and name folders, and a folder's `meta.info` names the image that is sent.

    Args:
        store_path: Folder of the sessions' folders; empty for MONAI Label's own.
        expiry: Seconds without a request after which a session is removed.
        limits: What an image may hold at most, and how many sessions there may be.
    """

    def __init__(self, store_path: str = "", expiry: int = 3600, limits: RequestLimits | None = None) -> None:
        super().__init__(store_path, expiry)
        self._limits = limits or RequestLimits()
        self._quota = SessionQuota(self._limits, self._on_disk)

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> SessionInfo:
        """Find a session.

        Raises:
            HTTPException: 404; it never existed, has expired, or its image is outside the session's folder.
        """
        info = self._find(session_id, update_ts, fetch_cache) if SESSION_ID.fullmatch(session_id) else None
        folder = Path(self.store_path, session_id).resolve()
        if info is None or folder not in Path(info.image).resolve().parents:
            shown = session_id if len(session_id) <= 128 else f"{session_id[:128]}..."
            raise HTTPException(404, f"Session {shown!r} does not exist or has expired: send the image again")
        return info

    def create(
        self, uploads: Iterable[Upload], expiry: int = 0, unpack: bool = False, owner: str | None = None
    ) -> SessionInfo:
        """Store an image temporarily. The session appears whole or not at all.

        Args:
            uploads: One image file, the files of one DICOM series, or one archive of these.
            expiry: Seconds without a request after which it is removed; at most, and by default, those of the server.
            unpack: Whether an archive is unpacked.
            owner: Who may use it; None for everybody who knows its id.

        Raises:
            HTTPException: 400; there is no image, more than one, or one that is damaged or too large. 429; there are
                too many sessions. 507; their images take too much space.
            StorageError: The disk is full.
        """
        info = SessionInfo({"name": uuid.uuid4().hex, "meta": {} if owner is None else {OWNER: owner}})
        with self._quota.place(info.name, owner) as grow:
            self._make(info, uploads, expiry, unpack, grow)
        self[info.name] = info
        return info

    def _make(
        self, info: SessionInfo, uploads: Iterable[Upload], expiry: int, unpack: bool, grow: Callable[[int], None]
    ) -> None:
        """Write the image and the record of a session, and then show its folder."""
        final = Path(self.store_path, info.name)
        making = Path(self.store_path, f"{UNFINISHED}{info.name}")
        with storing(Path("The image")):
            try:
                making.mkdir(mode=0o700, parents=True)
                image = store_image(uploads, making, self._limits, unpack, grow)
                info.meta[SIZE] = size_of(making)
                info.path, info.image = str(final), str(final / image.relative_to(making))
                info.create_ts = info.last_access_ts = int(time.time())
                info.expiry = min(expiry, self.expiry) if expiry > 0 else self.expiry
                write_text(making / META, info.to_str(), durable=False)
                making.rename(final)
            except VolumeError as error:
                raise HTTPException(400, str(error)) from error
            finally:
                shutil.rmtree(making, ignore_errors=True)

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> tuple[str, SessionInfo]:
        """Store a copy of a file, of a folder's files, or of the members of an archive.

        Raises:
            HTTPException: 400; as `create`.
        """
        path = Path(data_file)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        with ExitStack() as opened:
            info = self.create(
                [Upload(file.name, opened.enter_context(file.open("rb"))) for file in files], expiry, uncompress
            )
        return info.name, info

    def remove_expired(self) -> int:
        """Remove sessions that were unused for longer than their expiry or cannot be read; return how many."""
        names = os.listdir(self.store_path) if os.path.isdir(self.store_path) else []
        return sum(self._remove_if_expired(name) for name in names)

    def _on_disk(self) -> dict[str, SessionUsage]:
        """Return the size of each session; expired ones are removed first."""
        self.remove_expired()
        held = {}
        for name in os.listdir(self.store_path) if os.path.isdir(self.store_path) else ():
            info = None if name.startswith(".") else self._find(name, update_ts=False, fetch_cache=True)
            if info is not None:
                meta = info.meta or {}
                size = meta[SIZE] if isinstance(meta.get(SIZE), int) else size_of(Path(self.store_path, name))
                held[name] = SessionUsage(meta.get(OWNER), size)
        return held

    def _remove_if_expired(self, session_id: str) -> bool:
        info = None if session_id.startswith(".") else self._find(session_id, update_ts=False, fetch_cache=False)
        if info is None:
            return self._remove_if_broken(session_id)
        idle, age = time.time() - info.last_access_ts, time.time() - info.create_ts
        if not (0 < info.expiry < idle or age > self._limits.max_session_hours * HOUR):
            return False
        self.remove_session(session_id)
        return True

    def _remove_if_broken(self, session_id: str) -> bool:
        """Remove a folder without a readable session, unless it is being made."""
        folder = Path(self.store_path, session_id)
        if not folder.is_dir() or time.time() - folder.stat().st_mtime < self.expiry:
            return False
        self.remove_session(session_id)
        return True

    def _find(self, session_id: str, update_ts: bool, fetch_cache: bool) -> SessionInfo | None:
        """Return a session; None where there is none, or where its file was cut off when the server was killed."""
        try:
            info = super().get_session(session_id, update_ts, fetch_cache)
            if info is None or isinstance(info.image, str):
                return info
            error: Exception = TypeError(f"its image is {info.image!r}")
        except (ValueError, TypeError, AttributeError) as caught:
            error = caught
        logger.warning(f"Session {session_id} cannot be read: {error}")
        self.pop(session_id, None)
        return None

    def _write_meta_info(self, session_id: str, session_info: SessionInfo) -> None:
        """Record when a session was used last; one that is removed at the same time stays removed."""
        folder = Path(self.store_path, session_id)
        if folder.is_dir():
            write_text(folder / META, session_info.to_str(), durable=False)


def size_of(folder: Path) -> int:
    """Return the bytes of the files in a folder; of one that is removed meanwhile, of those that were found."""
    sizes = []
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                sizes.append(os.lstat(os.path.join(place, name)).st_size)
    return sum(sizes)
