"""Tokens of an OpenID Connect provider: which are accepted, and whom they stand for."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import HTTPException

from lib.server.access.identity import Identity, Role
from lib.server.access.oidc import Oidc, OidcSettings, TokenError
from tests.helpers.login_helpers import EC_KEY, RSA_KEY, Provider, fake_provider, forged


@pytest.fixture
def provider() -> Iterator[Provider]:
    with fake_provider() as provider:
        yield provider


@pytest.fixture
def oidc(provider: Provider) -> Oidc:
    return Oidc(provider.settings())


@pytest.mark.parametrize(
    ("roles", "role"),
    [
        (["monailabel-user"], Role.ANNOTATOR),
        (["monailabel-reviewer", "other"], Role.ANNOTATOR),
        (["monailabel-user", "monailabel-admin"], Role.ADMIN),
        (["other"], Role.NOBODY),
        ([], Role.NOBODY),
    ],
)
def test_the_roles_of_the_provider_become_roles_of_the_server(
    provider: Provider, oidc: Oidc, roles: list[str], role: Role
) -> None:
    assert oidc.identify(provider.sign(*roles)) == Identity("anna", role)


def test_tokens_signed_with_elliptic_curves_are_accepted(provider: Provider, oidc: Oidc) -> None:
    token = provider.sign("monailabel-admin", key=EC_KEY, alg="ES256", kid="ec")
    assert oidc.identify(token).role == Role.ADMIN


def test_the_public_key_at_the_realm_s_address_is_used_where_nothing_else_is_published(
    provider: Provider, oidc: Oidc
) -> None:
    provider.jwks = provider.issuer = None
    assert oidc.identify(provider.sign("monailabel-user", kid=None, azp=None)).name == "anna"
    with pytest.raises(TokenError):
        oidc.identify(provider.sign("monailabel-user", iss="https://other.example/realm"))


def hs256(provider: Provider, key: bytes) -> str:
    """A token signed with the public key as if that were a secret."""
    claims = {"preferred_username": "x", "exp": time.time() + 600, "iss": provider.issuer}
    unsigned = forged({"alg": "HS256", "typ": "JWT", "kid": "rsa"}, claims).rpartition(".")[0]
    return f"{unsigned}.{forged({}, {}, hmac.new(key, unsigned.encode(), hashlib.sha256).digest()).rpartition('.')[2]}"


PUBLIC = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
OTHER = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("published", ["keys", "public key"])
@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda p: p.sign("monailabel-admin", exp=int(time.time()) - 120), id="expired"),
        pytest.param(lambda p: p.sign("monailabel-admin", exp=None), id="without an end"),
        pytest.param(lambda p: p.sign("monailabel-admin", nbf=int(time.time()) + 600), id="not valid yet"),
        pytest.param(lambda p: p.sign("monailabel-admin", iss="https://evil.example"), id="of another issuer"),
        pytest.param(lambda p: p.sign("monailabel-admin", azp="other", aud="account"), id="for another program"),
        pytest.param(lambda p: p.sign("monailabel-admin", key=OTHER), id="signed with another key"),
        pytest.param(lambda p: p.sign("monailabel-admin", key=OTHER, kid="new"), id="signed with an unknown key"),
        pytest.param(lambda p: p.sign("monailabel-admin", preferred_username=None), id="without a name"),
        pytest.param(lambda p: hs256(p, PUBLIC), id="HS256 with the public key"),
        pytest.param(lambda p: forged({"alg": "none"}, {"preferred_username": "x", "exp": 9e9}), id="unsigned"),
        pytest.param(lambda p: p.sign("monailabel-admin")[:-6] + "AAAAAA", id="changed signature"),
        pytest.param(lambda p: "x.y.z", id="garbage"),
        pytest.param(lambda p: "..", id="empty"),
    ],
)
def test_any_other_token_is_refused(provider: Provider, oidc: Oidc, published: str, token: Any) -> None:
    if published == "public key":
        provider.jwks = None
    with pytest.raises(TokenError):
        oidc.identify(token(provider))


def test_unknown_keys_do_not_make_the_server_ask_the_provider_each_time(provider: Provider, oidc: Oidc) -> None:
    oidc.identify(provider.sign("monailabel-user"))
    asked = len(provider.requests)
    for number in range(20):
        with pytest.raises(TokenError):
            oidc.identify(provider.sign("monailabel-user", kid=f"unknown {number}"))
    assert len(provider.requests) == asked


def test_a_provider_that_is_away_is_reported_as_such() -> None:
    oidc = Oidc(OidcSettings("http://127.0.0.1:9", "app", "preferred_username", "roles", ("a",), ("b",), timeout=1))
    with pytest.raises(HTTPException, match="does not answer") as caught:
        oidc.identify(Provider("http://127.0.0.1:9").sign("a"))
    assert caught.value.status_code == 503
