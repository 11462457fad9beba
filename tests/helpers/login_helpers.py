"""A server with a login but without models, and a provider of tokens, both small enough for every test."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI, Request
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from lib.patches import monai_label as installing
from lib.patches import ohif
from lib.server.access.login import Login
from lib.server.access.oidc import OidcSettings
from lib.server.middleware.access import Access
from lib.server.middleware.same_origin import SameOrigin
from lib.server.routes import login as routes_of_login
from lib.server.routes import logs, proxy, start

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
BASE = "http://127.0.0.1:8000"


def upstream() -> FastAPI:
    """Stand-ins for MONAI Label's routes, of which the app keeps all but the last two."""
    api = FastAPI()

    def who(request: Request) -> dict[str, str]:
        return {"name": request.state.identity.name}

    for method, path in (
        ("GET", "/info/"),
        ("POST", "/train/{model}"),
        ("PUT", "/datastore/label"),
        ("DELETE", "/datastore/label"),
        ("POST", "/sam3d/rollback"),
        ("GET", "/sam3d/state"),
        ("POST", "/infer/wsi/{model}"),
        ("POST", "/reload"),
    ):
        api.add_api_route(path, who, methods=[method])
    return api


def serve_with(login: Login | None, hosts: Any = (), base: str = BASE) -> TestClient:
    """A client of a server with this login; it follows no redirect."""
    api = upstream()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installing, "ROUTERS", (routes_of_login.router, logs.router, ohif.router, proxy.router))
        patch.setattr(installing, "OWN_ROUTERS", (start.router, routes_of_login.pages))
        layers = Middleware(SameOrigin, hosts=hosts), Middleware(Access, login=login)
        patch.setattr(installing, "MIDDLEWARE", tuple(lambda _, layer=layer: layer for layer in layers))
        installing.install(SimpleNamespace(login=login), api)
    return TestClient(api, base_url=base, follow_redirects=False, raise_server_exceptions=False)


def pem_body(key: Any) -> str:
    """A public key as Keycloak's realm address has it: PEM without its first and last line."""
    text = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return "".join(text.splitlines()[1:-1])


class Provider:
    """What a fake provider publishes, and what it was asked.

    Args:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.issuer: str | None = url
        self.jwks: list[dict[str, Any]] | None = [
            {**json.loads(RSAAlgorithm.to_jwk(RSA_KEY.public_key())), "kid": "rsa", "alg": "RS256", "use": "sig"},
            {**json.loads(ECAlgorithm.to_jwk(EC_KEY.public_key())), "kid": "ec", "use": "sig"},
        ]
        self.requests: list[str] = []
        self.forms: list[dict[str, list[str]]] = []
        self.token: str | None = None
        self.held = threading.Event()
        self.held.set()

    def documents(self) -> dict[str, Any]:
        """Answers by path."""
        discovery = {"token_endpoint": f"{self.url}/token", "authorization_endpoint": f"{self.url}/authorize"}
        if self.issuer:
            discovery["issuer"] = self.issuer
        if self.jwks is not None:
            discovery["jwks_uri"] = f"{self.url}/keys"
        return {
            "/realm/.well-known/openid-configuration": discovery,
            "/realm": {"realm": "hospital", "public_key": pem_body(RSA_KEY)},
            "/keys": {"keys": self.jwks},
        }

    def settings(self) -> OidcSettings:
        """How the server knows it."""
        return OidcSettings(
            realm=f"{self.url}/realm",
            client_id="monailabel-app",
            username_claim="preferred_username",
            roles_claim="realm_access#roles",
            admin_roles=("monailabel-admin",),
            annotator_roles=("monailabel-user", "monailabel-annotator", "monailabel-reviewer"),
        )

    def sign(self, *roles: str, key: Any = RSA_KEY, alg: str = "RS256", kid: str | None = "rsa", **claims: Any) -> str:
        """A token of user anna."""
        content = {
            "preferred_username": "anna",
            "realm_access": {"roles": list(roles)},
            "exp": int(time.time()) + 600,
            "azp": "monailabel-app",
            **({"iss": self.issuer} if self.issuer else {}),
            **claims,
        }
        kept = {name: value for name, value in content.items() if value is not None}
        return jwt.encode(kept, key, algorithm=alg, headers={"kid": kid} if kid else None)


@contextmanager
def fake_provider() -> Iterator[Provider]:
    """A provider on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.requests.append(self.path)
            self.answer(provider.documents().get(self.path))

        def do_POST(self) -> None:
            provider.forms.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            provider.held.wait(30)
            token = provider.token
            self.answer({"access_token": token, "token_type": "Bearer", "expires_in": 300} if token else None, 401)

        def answer(self, content: Any, otherwise: int = 404) -> None:
            body = json.dumps(content).encode()
            self.send_response(otherwise if content is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 100

    server = Server(("127.0.0.1", 0), Handler)
    provider = Provider(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()


def forged(header: dict[str, str], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token put together by hand."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
