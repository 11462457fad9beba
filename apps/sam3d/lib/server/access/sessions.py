"""Logins that last: random tokens, of which the server keeps only hashes, in memory."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from lib.server.access.identity import Identity

MOST = 10_000
"""Sessions that are kept; the oldest ends when one more is opened."""


@dataclass(frozen=True)
class LoginSession:
    """A login that lasts until it expires or its user logs out.

    Attributes:
        identity: Who logged in.
        expires: Time of `time.monotonic` at which it ends.
        key: Identifier of the API key that opened it; a session ends when its key is revoked.
    """

    identity: Identity
    expires: float
    key: str | None = None


class LoginSessions:
    """The logins of a server; a restart ends them all.

    Args:
        seconds: How long one lasts.
        clock: Time in seconds, for tests.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, LoginSession] = OrderedDict()

    def open(self, identity: Identity, key: str | None = None, seconds: float | None = None) -> str:
        """Open a session and return its token.

        Args:
            identity: Who logged in.
            key: Identifier of the API key.
            seconds: When it ends, if earlier than usual.
        """
        token = secrets.token_urlsafe(32)
        lasts = self.seconds if seconds is None else min(seconds, self.seconds)
        with self._lock:
            self._sessions[_digest(token)] = LoginSession(identity, self._clock() + lasts, key)
            while len(self._sessions) > MOST:
                self._sessions.popitem(last=False)
        return token

    def find(self, token: str) -> LoginSession | None:
        """Return the session of a token, or None when there is none or it has expired."""
        digest = _digest(token)
        with self._lock:
            session = self._sessions.get(digest)
            if session is not None and session.expires <= self._clock():
                del self._sessions[digest]
                return None
            return session

    def close(self, token: str) -> None:
        """End the session of a token, if there is one."""
        with self._lock:
            self._sessions.pop(_digest(token), None)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
