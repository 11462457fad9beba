"""The login of a server: API keys, tokens of an OpenID Connect provider, and the sessions opened with either."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cachetools import TTLCache
from fastapi import HTTPException
from monailabel.config import Settings

from lib.server.access.failures import Failures, network
from lib.server.access.identity import Identity, Role
from lib.server.access.oidc import Oidc, OidcSettings, TokenError
from lib.server.access.sessions import LoginSession, LoginSessions
from lib.server.user_shares import BusyError, UserShares
from sam3d_label.access.api_keys import ApiKey, ApiKeyError, ApiKeys

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

COOKIE = "sam3d_session"
PROVIDER_CALLS, OF_ONE_ADDRESS, MOST_WAITING = 4, 2, 8
"""Questions that visitors make this server ask the provider at a time: of all, of one address, and how many of one
address may wait. They have threads of their own, so that a slow provider keeps no other route waiting."""

KNOWN_SECONDS = 900
"""How long a credential that was right keeps working at an address that has to wait because of others' failures."""

RETRY_SECONDS = 5
ROLES = {"annotator": Role.ANNOTATOR, "admin": Role.ADMIN}


@dataclass(frozen=True)
class OpenedSession:
    """A session that was just opened.

    Attributes:
        token: Its secret, for the cookie or the `Authorization` header.
        identity: Who logged in.
    """

    token: str
    identity: Identity


class Login:
    """Authentication of users and programs.

    Args:
        keys: API keys, if the server has any.
        oidc: Provider of tokens, if the server has one.
        seconds: How long a session lasts.
    """

    def __init__(self, keys: ApiKeys | None, oidc: Oidc | None, seconds: float) -> None:
        self.keys = keys
        self.oidc = oidc
        self.sessions = LoginSessions(seconds)
        self._provider_calls = UserShares(PROVIDER_CALLS, OF_ONE_ADDRESS, MOST_WAITING)
        self._failures = Failures()
        self._known: TTLCache[str, bool] = TTLCache(10_000, KNOWN_SECONDS)
        self._known_lock = threading.Lock()

    def from_cookie(self, token: str) -> Identity | None:
        """Return the user of a session's cookie; None if it has expired, so that the user logs in again."""
        return self._in_session(token)

    def from_bearer(self, token: str, address: str) -> Identity:
        """Return the user of a token in the `Authorization` header: of a session, an API key, or the provider.

        Raises:
            HTTPException: 401 when it is not valid, 429 after too many failures, 503 when the provider is away.
        """
        identity = self._in_session(token)
        if identity is not None:
            return identity
        digest = hashlib.sha256(token.encode()).hexdigest()
        with self._known_lock:
            known = digest in self._known
        if not known:
            self.check_address(address)
        identity = self._verified(token)
        if identity is None:
            self._failures.add(address)
            raise unauthorized("The token is not valid or has expired: log in again, or use another API key")
        with self._known_lock:
            self._known[digest] = True
        return identity

    def open(self, name: str, secret: str, address: str) -> OpenedSession:
        """Log in with an API key and its name.

        Raises:
            HTTPException: 401 when they do not belong together, 429 after too many failures.
        """
        self.check_address(address)
        key = self.find_key(secret.strip())
        if key is None or key.name != name.strip():
            raise self.failed(address, "Name and API key do not belong together, or the key was revoked")
        identity = _identity(key)
        return OpenedSession(self.sessions.open(identity, key.id), identity)

    def find_key(self, secret: str) -> ApiKey | None:
        """Return the record of an API key; None when there is no such key.

        Raises:
            HTTPException: 503 when the file of keys can no longer be used.
        """
        try:
            return self.keys.find(secret) if self.keys else None
        except ApiKeyError as error:
            raise _unusable(error) from None

    def open_with_token(self, token: str, lasts: float | None = None) -> OpenedSession:
        """Open a session for a token of the provider.

        Args:
            token: The provider's access token.
            lasts: Seconds for which it is valid.

        Raises:
            HTTPException: 401 when it is not valid, 403 when its user has no role here.
        """
        assert self.oidc is not None
        try:
            identity = self.oidc.identify(token)
        except TokenError as error:
            raise unauthorized(f"The login server's token is not valid: {error}") from None
        if identity.role == Role.NOBODY:
            raise HTTPException(403, "This user has no role on this server: ask the administrator of the login server")
        return OpenedSession(self.sessions.open(identity, seconds=lasts), identity)

    async def at_provider(self, address: str, work: Callable[[], Answer]) -> Answer:
        """Run work that waits for the provider, for a client without a login.

        Args:
            address: The visitor's.
            work: Computes the answer in a thread.

        Raises:
            HTTPException: 429 when many logins of this address wait.
        """
        try:
            return await self._provider_calls.run(network(address), work)
        except BusyError:
            detail = "Many logins from this address wait for the login server: try again in a few seconds"
            raise HTTPException(429, detail, {"Retry-After": str(RETRY_SECONDS)}) from None

    def failed(self, address: str, reason: str) -> HTTPException:
        """Count a failed login and return its error."""
        self._failures.add(address)
        return unauthorized(reason)

    def check_address(self, address: str) -> None:
        """Check that an address may try to log in.

        Raises:
            HTTPException: 429 when it failed too often.
        """
        if seconds := self._failures.wait(address):
            headers = {"Retry-After": str(seconds)}
            raise HTTPException(429, f"Too many failed logins: wait {seconds} seconds", headers)

    def _in_session(self, token: str) -> Identity | None:
        session = self.sessions.find(token)
        if session is None:
            return None
        if self._revoked(session):
            self.sessions.close(token)
            return None
        return session.identity

    def _revoked(self, session: LoginSession) -> bool:
        try:
            return session.key is not None and (self.keys is None or not self.keys.has(session.key))
        except ApiKeyError as error:
            raise _unusable(error) from None

    def _verified(self, token: str) -> Identity | None:
        if self.oidc is not None and token.count(".") == 2:
            try:
                return self.oidc.identify(token)
            except TokenError as error:
                logger.warning(f"A token was rejected: {error}")
                return None
        key = self.find_key(token)
        return _identity(key) if key else None


def make_login(api_keys: Path | None, hours: float, settings: Settings) -> Login | None:
    """Return the login that is configured, or None.

    Args:
        api_keys: File of API keys.
        hours: How long a session lasts.
        settings: MONAI Label's settings, whose `MONAI_LABEL_AUTH_…` describe the provider.

    Raises:
        ApiKeyError: The file cannot be used.
    """
    keys = ApiKeys(api_keys) if api_keys else None
    if keys is not None and not keys.all():
        logger.warning(f"{api_keys} has no key yet; add one with 'python -m sam3d_label api-key add'")
    oidc = Oidc(OidcSettings.of_monai_label(settings)) if settings.MONAI_LABEL_AUTH_ENABLE else None
    return Login(keys, oidc, hours * 3600) if keys or oidc else None


def unauthorized(reason: str) -> HTTPException:
    """Return the answer to a request without valid credentials."""
    return HTTPException(401, reason, {"WWW-Authenticate": 'Bearer realm="SAM3D"'})


def _unusable(error: ApiKeyError) -> HTTPException:
    logger.error(error)
    return HTTPException(503, "The server cannot read its API keys; its log has the reason")


def _identity(key: ApiKey) -> Identity:
    return Identity(key.name, ROLES[key.role])
