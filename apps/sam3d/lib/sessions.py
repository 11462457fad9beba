"""Sessions that cannot be used to reach files outside their folder, and that say when they are gone."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from fastapi import HTTPException
from monailabel.utils.sessions import SessionInfo, Sessions

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
        known = SESSION_ID.fullmatch(session_id) is not None
        info = super().get_session(session_id, update_ts, fetch_cache) if known else None
        folder = Path(self.store_path, session_id).resolve()
        if info is None or folder not in Path(info.image).resolve().parents:
            raise HTTPException(404, f"Session {session_id!r} does not exist or has expired: send the image again")
        return info

    def remove_expired(self) -> int:
        """Removes what nobody used for longer than its expiry; returns how many."""
        names = os.listdir(self.store_path) if os.path.isdir(self.store_path) else []
        return sum(self._remove_if_expired(name) for name in names)

    def _remove_if_expired(self, session_id: str) -> bool:
        info = super().get_session(session_id, update_ts=False, fetch_cache=False)
        if info is None or not 0 < info.expiry < time.time() - info.last_access_ts:
            return False
        self.remove_session(session_id)
        return True
