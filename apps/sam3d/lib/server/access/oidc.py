"""Identify users of an OpenID Connect provider, such as Keycloak, by signed tokens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
import requests
from fastapi import HTTPException
from monailabel.config import Settings

from lib.server.access.identity import Identity, Role

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a private key. Those with a shared secret (HS256) and `none` are never accepted."""

KEY_TYPES = ("RSA", "EC", "OKP")

LEEWAY = 30
"""Seconds by which the clocks of the two servers may differ."""

KEYS_LAST = 600.0
"""Seconds after which the provider's keys are fetched again."""

FETCH_EVERY = 30.0
"""Least seconds between two fetches, whatever tokens arrive."""


class TokenError(Exception):
    """A token that is not valid; the message does not contain it."""


@dataclass(frozen=True)
class OidcSettings:
    """MONAI Label's `MONAI_LABEL_AUTH_…` settings.

    Attributes:
        realm: Address of the realm or issuer.
        client_id: Name by which the provider knows this server.
        username_claim: Claim with the user's name.
        roles_claim: Path to the claim with the roles, its parts joined by `#`.
        admin_roles: Roles of the provider that make an admin.
        annotator_roles: Roles of the provider that make an annotator.
        timeout: Seconds that the provider may take to answer.
    """

    realm: str
    client_id: str
    username_claim: str
    roles_claim: str
    admin_roles: Sequence[str]
    annotator_roles: Sequence[str]
    timeout: float = 10

    @classmethod
    def of_monai_label(cls, settings: Settings) -> OidcSettings:
        """Read MONAI Label's settings."""
        return cls(
            realm=settings.MONAI_LABEL_AUTH_REALM_URI.rstrip("/"),
            client_id=settings.MONAI_LABEL_AUTH_CLIENT_ID,
            username_claim=settings.MONAI_LABEL_AUTH_TOKEN_USERNAME,
            roles_claim=settings.MONAI_LABEL_AUTH_TOKEN_ROLES,
            admin_roles=(settings.MONAI_LABEL_AUTH_ROLE_ADMIN,),
            annotator_roles=(
                settings.MONAI_LABEL_AUTH_ROLE_USER,
                settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR,
                settings.MONAI_LABEL_AUTH_ROLE_REVIEWER,
            ),
            timeout=settings.MONAI_LABEL_AUTH_TIMEOUT,
        )


@dataclass(frozen=True)
class _Provider:
    """Metadata that the provider publishes."""

    document: Mapping[str, object]
    issuer: str | None
    keys: Mapping[str | None, jwt.PyJWK]
    public_key: str | None
    fetched: float


class Oidc:
    """An OpenID Connect provider.

    Args:
        settings: Where it is, and which claims say what.
    """

    def __init__(self, settings: OidcSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._provider: _Provider | None = None
        self._tried = float("-inf")

    def identify(self, token: str) -> Identity:
        """Return the user of a token; the role is `Role.NOBODY` if the provider has none for this server.

        Raises:
            TokenError: The token is not valid.
            HTTPException: 503 when the provider does not answer.
        """
        claims = self.claims(token)
        audience = claims.get("aud")
        meant_for = [claims.get("azp"), *(audience if isinstance(audience, list) else [audience])]
        if claims.get("azp") is not None and self.settings.client_id not in meant_for:
            raise TokenError("it was issued to another program")
        return self.identity(claims)

    def claims(self, token: str, audience: str | None = None) -> dict[str, object]:
        """Return the claims of a token after a check of its signature, issuer and dates.

        Args:
            token: A signed JWT.
            audience: Whom it must be for, for ID tokens.

        Raises:
            TokenError: The token is not valid.
            HTTPException: 503 when the provider does not answer.
        """
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError as error:
            raise TokenError(str(error)) from None
        provider = self._published()
        try:
            return self._verified(token, provider, kid, audience)
        except (jwt.InvalidSignatureError, KeyError) as error:
            newer = self._published(newer_than=provider.fetched)  # the provider may have changed its keys
            if newer is provider:
                raise TokenError(_reason(error)) from None
        except jwt.PyJWTError as error:
            raise TokenError(_reason(error)) from None
        try:
            return self._verified(token, newer, kid, audience)
        except (jwt.PyJWTError, KeyError) as error:
            raise TokenError(_reason(error)) from None

    def identity(self, claims: Mapping[str, object]) -> Identity:
        """Return name and role of the user that claims describe.

        Raises:
            TokenError: They name no user.
        """
        name = claims.get(self.settings.username_claim)
        if not isinstance(name, str) or not name:
            raise TokenError(f"it has no claim {self.settings.username_claim}")
        found: object = claims
        for part in self.settings.roles_claim.split("#"):
            found = found.get(part) if isinstance(found, Mapping) else None
        roles: set[str] = {role for role in found if isinstance(role, str)} if isinstance(found, list) else set()
        if roles & set(self.settings.admin_roles):
            return Identity(name, Role.ADMIN)
        return Identity(name, Role.ANNOTATOR if roles & set(self.settings.annotator_roles) else Role.NOBODY)

    def endpoint(self, name: str) -> str:
        """Return the address of one of the provider's endpoints, such as `token_endpoint`.

        Raises:
            HTTPException: 503 when the provider does not answer or does not have it.
        """
        address = self._published().document.get(name)
        if not isinstance(address, str):
            raise HTTPException(503, f"The login server publishes no {name}; check MONAI_LABEL_AUTH_REALM_URI")
        return address

    def ask_for_token(self, form: Mapping[str, str]) -> dict[str, object] | None:
        """Send a form to the token endpoint; return its response, or None when the provider rejects it.

        Raises:
            HTTPException: 503 when the provider does not answer.
        """
        address = self.endpoint("token_endpoint")
        try:
            answer = requests.post(
                address,
                data={"client_id": self.settings.client_id, **form},
                timeout=self.settings.timeout,
                allow_redirects=False,
            )
            if answer.status_code in (400, 401, 403):
                return None
            answer.raise_for_status()
            body = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise _no_answer(error) from None
        return body if isinstance(body, dict) and isinstance(body.get("access_token"), str) else None

    def _verified(self, token: str, provider: _Provider, kid: str | None, audience: str | None) -> dict[str, object]:
        key, allowed = _key(provider, kid)
        issuer = provider.issuer
        claims: dict[str, object] = jwt.decode(
            token,
            key,
            algorithms=list(allowed),
            issuer=issuer,
            audience=audience,
            leeway=LEEWAY,
            options={"require": ["exp"], "verify_aud": audience is not None, "verify_iss": issuer is not None},
        )
        if issuer is None and claims.get("iss", self.settings.realm) != self.settings.realm:
            raise jwt.InvalidIssuerError("Invalid issuer")
        return claims

    def _published(self, newer_than: float | None = None) -> _Provider:
        with self._lock:
            now = time.monotonic()
            known = self._provider
            if known is not None and now - known.fetched < KEYS_LAST and newer_than is None:
                return known
            if known is not None and (now - self._tried < FETCH_EVERY or (newer_than or known.fetched) < known.fetched):
                return known
            if known is None and now - self._tried < 1:
                raise HTTPException(503, "The login server does not answer; try again in a few seconds")
            self._tried = now
            try:
                self._provider = self._fetch(now)
            except (requests.RequestException, ValueError, jwt.PyJWTError) as error:
                logger.warning(f"The keys of {self.settings.realm} cannot be fetched: {type(error).__name__}")
                if known is None:
                    raise _no_answer(error) from None
            assert self._provider is not None
            return self._provider

    def _fetch(self, now: float) -> _Provider:
        realm = self.settings.realm
        document = self._get(f"{realm}/.well-known/openid-configuration") or {}
        issuer = document.get("issuer")
        if issuer is not None and not isinstance(issuer, str):
            raise ValueError("the issuer is not a text")
        if isinstance(address := document.get("jwks_uri"), str):
            listed = (self._get(address) or {}).get("keys")
            keys = jwt.PyJWKSet([key for key in listed if _signs(key)] if isinstance(listed, list) else [])
            return _Provider(document, issuer, {key.key_id: key for key in keys.keys}, None, now)
        public_key = (self._get(realm) or {}).get("public_key")
        if not isinstance(public_key, str):
            raise ValueError("neither jwks_uri nor public_key")
        pem = f"-----BEGIN PUBLIC KEY-----\n{public_key}\n-----END PUBLIC KEY-----"
        return _Provider(document, issuer, {}, pem, now)

    def _get(self, address: str) -> dict[str, object] | None:
        answer = requests.get(address, timeout=self.settings.timeout)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        body = answer.json()
        return body if isinstance(body, dict) else None


def _signs(key: object) -> bool:
    return isinstance(key, dict) and key.get("kty") in KEY_TYPES and key.get("use", "sig") == "sig"


def _key(provider: _Provider, kid: str | None) -> tuple[Any, Sequence[str]]:  # PyJWT has a class for each kind of key
    """Return the key that must have signed a token, and the signatures that it may have.

    Raises:
        KeyError: The provider has no such key.
    """
    if provider.public_key is not None:
        return provider.public_key, ALGORITHMS
    found = next(iter(provider.keys.values())) if kid is None and len(provider.keys) == 1 else provider.keys[kid]
    return found.key, [found.algorithm_name] if found.algorithm_name in ALGORITHMS else []


def _reason(error: Exception) -> str:
    return "it is signed with an unknown key" if isinstance(error, KeyError) else str(error)


def _no_answer(error: Exception) -> HTTPException:
    return HTTPException(503, f"The login server does not answer as it should ({type(error).__name__})")
