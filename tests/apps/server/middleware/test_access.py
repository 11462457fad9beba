"""What a server with a login answers to whom."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from lib.server.access.failures import MOST_FAILURES
from lib.server.access.login import Login
from lib.server.access.oidc import Oidc
from sam3d_label.access.api_keys import ApiKeys
from tests.helpers.login_helpers import fake_provider, serve_with


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    return ApiKeys(tmp_path / "keys.json")


@pytest.fixture
def annotator(keys: ApiKeys) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.add('anna', 'annotator')}"}


@pytest.fixture
def admin(keys: ApiKeys) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.add('root', 'admin')}"}


@pytest.fixture
def client(keys: ApiKeys, annotator: Any, admin: Any) -> TestClient:
    return serve_with(Login(keys, None, 3600))


PROTECTED = [
    ("GET", "/info/"),
    ("GET", "/docs"),
    ("GET", "/ohif/"),
    ("GET", "/ohif/app-config.js"),
    ("GET", "/static/ohif/index.html"),
    ("GET", "/proxy/dicom/qido/studies"),
    ("GET", "/sam3d/state"),
    ("GET", "/logs/"),
    ("POST", "/train/sam3d"),
    ("POST", "/reload"),
    ("PUT", "/datastore/label"),
    ("DELETE", "/datastore/label"),
    ("GET", "/auth/token/valid"),
    ("GET", "/no/such/path"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_nothing_is_answered_without_a_login(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_browser_is_sent_to_the_login_page_and_back(client: TestClient) -> None:
    answer = client.get("/ohif/viewer?StudyInstanceUIDs=1.2&x=%26", headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sam3d/login?next=%2Fohif%2Fviewer%3FStudyInstanceUIDs%3D1.2%26x%3D%2526"
    assert client.get(answer.headers["location"]).status_code == 200


def test_an_annotator_annotates_and_an_admin_does_everything(client: TestClient, annotator: Any, admin: Any) -> None:
    for method, path, status in (
        ("GET", "/info/", 200),
        ("PUT", "/datastore/label", 200),
        ("GET", "/sam3d/state", 200),
        ("POST", "/train/sam3d", 403),
        ("DELETE", "/datastore/label", 403),
        ("POST", "/sam3d/rollback", 403),
    ):
        assert client.request(method, path, headers=annotator).status_code == status, path
        answer = client.request(method, path, headers=admin)
        assert (answer.status_code, answer.json()) == (200, {"name": "root"}), path


def test_routes_that_nobody_replaced_or_listed_are_gone(client: TestClient, admin: Any) -> None:
    for path in ("/reload", "/infer/wsi/sam3d"):
        assert client.post(path, headers=admin).status_code in (404, 405)


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer x", "Basic x", "Bearer sam3d_000000000000_" + "A" * 43]
)
def test_another_authorization_is_refused(client: TestClient, header: str) -> None:
    assert client.get("/info/", headers={"Authorization": header}).status_code == 401


def test_a_revoked_key_is_refused_at_once(client: TestClient, keys: ApiKeys, annotator: Any) -> None:
    assert client.get("/info/", headers=annotator).status_code == 200
    keys.revoke("anna")
    assert client.get("/info/", headers=annotator).status_code == 401


def test_a_file_of_keys_that_can_no_longer_be_used_rejects_everybody(
    client: TestClient, keys: ApiKeys, annotator: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.get("/info/", headers=annotator).status_code == 200
    keys.path.write_text("{")
    answer = client.get("/info/", headers=annotator)
    assert (answer.status_code, str(keys.path) in answer.text) == (503, False)
    assert client.post("/auth/token", data={"username": "anna", "password": "x"}).status_code == 503
    assert "restore it from a backup" in caplog.text


def test_too_many_failures_have_to_wait_and_those_who_are_in_stay_in(
    client: TestClient, annotator: Any, admin: Any
) -> None:
    assert client.get("/info/", headers=annotator).status_code == 200
    for _ in range(MOST_FAILURES):
        assert client.get("/info/", headers={"Authorization": "Bearer wrong"}).status_code == 401
    refused = client.get("/info/", headers={"Authorization": "Bearer wrong"})
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert client.get("/info/", headers=admin).status_code == 429  # its key was not used before
    assert client.get("/info/", headers=annotator).status_code == 200
    assert client.post("/auth/token", data={"username": "anna", "password": "x"}).status_code == 429


def test_requests_without_credentials_do_not_count_as_failures(client: TestClient, admin: Any) -> None:
    for _ in range(3 * MOST_FAILURES):
        client.get("/info/")
    assert client.get("/info/", headers=admin).status_code == 200


def test_a_wrong_token_does_not_close_public_routes(client: TestClient) -> None:
    answer = client.get("/auth/", headers={"Authorization": "Bearer wrong"})
    assert answer.json()["enabled"] is True


@pytest.mark.parametrize("value", ['"' + "\\" * 60_000 + '"', '"' + '\\"' * 30_000 + '"', '"' + "\\1" * 30_000 + '"'])
def test_a_long_cookie_does_not_hold_up_the_server(client: TestClient, value: str) -> None:
    start = time.monotonic()
    assert client.get("/info/", headers={"Cookie": f"sam3d_session={value}"}).status_code == 401
    assert time.monotonic() - start < 2


def test_the_sessions_cookie_is_found_among_others(keys: ApiKeys) -> None:
    login = Login(keys, None, 3600)
    token = login.open("anna", keys.add("anna", "annotator"), "127.0.0.1").token
    cookies = f'first="a; b"; flag; xsam3d_session=no; sam3d_session={token} ; sam3d_session=later'
    assert serve_with(login).get("/auth/token/valid", headers={"Cookie": cookies}).json()["username"] == "anna"


def test_everybody_is_admin_on_a_server_without_a_login() -> None:
    client = serve_with(None)
    assert client.post("/train/sam3d").json() == {"name": "anonymous"}
    assert client.get("/auth/").json()["enabled"] is False


def test_tokens_of_a_provider_give_access_by_their_roles() -> None:
    with fake_provider() as provider:
        client = serve_with(Login(None, Oidc(provider.settings()), 3600))
        statuses = {
            role: [
                client.request(method, path, headers={"Authorization": f"bearer {provider.sign(role)}"}).status_code
                for method, path in (("GET", "/info/"), ("POST", "/train/sam3d"))
            ]
            for role in ("monailabel-user", "monailabel-admin", "other")
        }
    assert statuses == {"monailabel-user": [200, 403], "monailabel-admin": [200, 200], "other": [403, 403]}


def test_no_key_or_token_is_in_the_log(
    client: TestClient, annotator: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with fake_provider() as provider:
        other = serve_with(Login(None, Oidc(provider.settings()), 3600))
        token = provider.sign("monailabel-admin", exp=1)
        assert other.get("/info/", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    client.get("/info/", headers=annotator)
    client.post("/auth/token", data={"username": "anna", "password": "s3cr3t-guess"})
    secrets = (annotator["Authorization"][7:], token, token.split(".")[1], "s3cr3t-guess")
    assert [secret for secret in secrets if secret in caplog.text] == []
