"""Sessions that cannot be used to reach files outside their folder, and that say when they are gone."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

from fastapi import HTTPException
from monailabel.utils.sessions import SessionInfo, Sessions

logger = logging.getLogger(__name__)
SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class SafeSessions(Sessions):
    """MONAI Label's sessions with checked ids.

    The ids come from clients and name folders, and a folder's `meta.info` names the image that is served.
    """

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> SessionInfo:
        """Finds a session.

        Raises:
            HTTPException: 404; it never existed, has expired, or its image lies outside the session's folder.
        """
        info = self._find(session_id, update_ts, fetch_cache) if SESSION_ID.fullmatch(session_id) else None
        folder = Path(self.store_path, session_id).resolve()
        if info is None or folder not in Path(info.image).resolve().parents:
            raise HTTPException(404, f"Session {session_id!r} does not exist or has expired: send the image again")
        return info

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> tuple[str, SessionInfo]:
        """Keeps a file, a folder, or what an archive holds.

        Raises:
            HTTPException: 400; the archive cannot be unpacked, or would write outside its folder.
        """
        if not uncompress:
            return tuple(super().add_session(data_file, expiry, session_id=session_id))
        folder = tempfile.mkdtemp()
        try:
            shutil.unpack_archive(data_file, folder, filter="data" if tarfile.is_tarfile(data_file) else None)
            return tuple(super().add_session(folder, expiry, session_id=session_id))
        except (shutil.ReadError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise HTTPException(400, f"This archive cannot be unpacked ({type(error).__name__})") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove_expired(self) -> int:
        """Removes what nobody used for longer than its expiry, and what cannot be read; returns how many."""
        names = os.listdir(self.store_path) if os.path.isdir(self.store_path) else []
        return sum(self._remove_if_expired(name) for name in names)

    def _remove_if_expired(self, session_id: str) -> bool:
        info = self._find(session_id, update_ts=False, fetch_cache=False)
        if info is None:
            return self._remove_if_broken(session_id)
        if not 0 < info.expiry < time.time() - info.last_access_ts:
            return False
        self.remove_session(session_id)
        return True

    def _remove_if_broken(self, session_id: str) -> bool:
        """Removes a folder whose session nobody can name any more, unless it is just being made."""
        folder = Path(self.store_path, session_id)
        if not folder.is_dir() or time.time() - folder.stat().st_mtime < self.expiry:
            return False
        self.remove_session(session_id)
        return True

    def _find(self, session_id: str, update_ts: bool, fetch_cache: bool) -> SessionInfo | None:
        """A session; None where there is none, or where its file was cut off when the server was killed."""
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
