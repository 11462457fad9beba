"""Security headers on every answer."""

from __future__ import annotations

import base64
import hashlib

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from lib.server.middleware.headers import SecurityHeaders, inline_scripts
from tests.helpers.login_helpers import BASE, serve_with


@pytest.fixture(scope="module")
def client() -> TestClient:
    return serve_with(None)


@pytest.mark.parametrize("path", ["/info/", "/no/such", "/sam3d/login", "/", "/ohif/", "/docs", "/openapi.json"])
def test_every_answer_has_them(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "same-origin"
    assert "frame-ancestors 'self'" in headers["content-security-policy"]


def test_refused_requests_have_them(client: TestClient) -> None:
    answer = client.get("/info/", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (421, "nosniff")


def test_answers_to_unexpected_errors_have_them(client: TestClient) -> None:
    def fail() -> None:
        raise RuntimeError

    assert isinstance(client.app, FastAPI)
    client.app.add_api_route("/fails", fail)
    answer = client.get("/fails")
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (500, "nosniff")


def test_our_pages_run_no_inline_script_and_nothing_of_other_servers(client: TestClient) -> None:
    for path in ("/sam3d/login", "/docs"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert not {"http://", "https://", "<script", "style="} & {
            word for word in ("http://", "https://", "<script", "style=") if word in answer.text
        }


def test_data_can_load_nothing(client: TestClient) -> None:
    policy = client.get("/info/").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; frame-ancestors 'self'")


def test_data_is_not_kept_by_browsers(client: TestClient) -> None:
    assert client.get("/info/").headers["cache-control"] == "no-store"


def test_secure_servers_ask_to_be_addressed_securely() -> None:
    assert "strict-transport-security" in serve_with(None, base="https://127.0.0.1").get("/info/").headers
    assert "strict-transport-security" not in serve_with(None, base=BASE).get("/info/").headers


def test_inline_scripts_of_ohif_are_allowed_one_by_one() -> None:
    page = '<script>let a = 1\n</script><script defer src="x.js"></script><script type="module">b</script>'
    expected = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in (b"let a = 1\n", b"b")
    ]
    assert inline_scripts(page) == expected
    assert inline_scripts("") == []
    api = FastAPI()
    api.add_middleware(SecurityHeaders, ohif_page=lambda base: page)
    policy = TestClient(api).get("/ohif/").headers["content-security-policy"]
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert expected[0] in scripts
    assert "unsafe-inline" not in scripts
