"""Login of a browser at an OpenID Connect provider: authorization code with PKCE (RFC 6749, RFC 7636)."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
from urllib.parse import urlencode

from cachetools import TTLCache
from fastapi import HTTPException

from lib.server.access.oidc import Oidc

SECONDS = 600
"""How long a user may take at the provider."""


class CodeFlows:
    """Logins that have been started.

    Args:
        oidc: The provider.
    """

    def __init__(self, oidc: Oidc) -> None:
        self._oidc = oidc
        self._started: TTLCache[str, tuple[str, str]] = TTLCache(1_000, SECONDS)
        self._lock = threading.Lock()

    def start(self, callback: str, wanted: str) -> tuple[str, str]:
        """Return the provider's address for the redirect, and the state that the provider must send back.

        Args:
            callback: Address of this server's callback.
            wanted: Path to go to after the login.
        """
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._oidc.settings.client_id,
            "redirect_uri": callback,
            "scope": "openid profile",
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = self._oidc.endpoint("authorization_endpoint")
        with self._lock:
            self._started[state] = (verifier, wanted)
        return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}", state

    def finish(self, state: str, code: str, callback: str) -> tuple[str, float | None, str]:
        """Exchange the code for a token; return it, the seconds that it lasts, and the path to go to.

        Raises:
            HTTPException: 401 when the login was not started here or the provider rejects the code.
        """
        with self._lock:
            verifier, wanted = self._started.pop(state, (None, ""))
        answer: dict[str, object] | None = None
        if verifier is not None:
            answer = self._oidc.ask_for_token(
                {
                    "grant_type": "authorization_code",
                    "code": code,
                    "redirect_uri": callback,
                    "code_verifier": verifier,
                }
            )
        if answer is None:
            raise HTTPException(401, "The login server did not confirm the login: start again")
        lasts = answer.get("expires_in")
        return str(answer["access_token"]), float(lasts) if isinstance(lasts, int | float) else None, wanted
