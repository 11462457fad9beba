"""How browsers, Slicer and MONAI Label's client log in."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import uvicorn
from monailabel.client.client import MONAILabelClient, MONAILabelClientException
from starlette.testclient import TestClient

from lib.server.access.login import COOKIE, MOST_WAITING, OF_ONE_ADDRESS, Login
from lib.server.access.oidc import Oidc
from lib.server.routes.login import local_path
from sam3d_label.access.api_keys import ApiKeys
from sam3d_label.serving import free_port
from tests.helpers.app_helpers import wait
from tests.helpers.login_helpers import Provider, fake_provider, serve_with


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    return ApiKeys(tmp_path / "keys.json")


@pytest.fixture
def key(keys: ApiKeys) -> str:
    return keys.add("anna", "annotator")


@pytest.fixture
def client(keys: ApiKeys, key: str) -> TestClient:
    return serve_with(Login(keys, None, 3600))


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once something has happened in another thread."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def log_in(client: TestClient, key: str, **form: str) -> Any:
    return client.post("/sam3d/login", data={"name": "anna", "key": key, **form})


def test_a_browser_logs_in_with_a_cookie_that_scripts_and_other_sites_cannot_use(client: TestClient, key: str) -> None:
    answer = log_in(client, key, next="/ohif/?a=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/ohif/?a=1")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie
    assert key not in cookie
    assert client.get("/info/").status_code == 200
    assert "anna" in client.get("/sam3d/login").text


def test_the_cookie_of_a_secure_server_is_sent_to_secure_servers_only(keys: ApiKeys, key: str) -> None:
    client = serve_with(Login(keys, None, 3600), base="https://127.0.0.1")
    cookie = log_in(client, key).headers["set-cookie"]
    assert cookie.startswith(f"__Host-{COOKIE}=")
    assert "Secure" in cookie
    assert "Path=/;" in cookie
    assert "Domain" not in cookie
    assert client.get("/info/").status_code == 200


def test_a_cookie_that_another_site_of_the_domain_could_set_does_not_log_in(keys: ApiKeys, key: str) -> None:
    login = Login(keys, None, 3600)
    token = login.open("anna", key, "127.0.0.1").token
    client = serve_with(login, base="https://127.0.0.1")
    assert client.get("/info/", headers={"Cookie": f"{COOKIE}={token}"}).status_code == 401
    assert client.get("/info/", headers={"Cookie": f"__Host-{COOKIE}={token}"}).status_code == 200


def test_a_secure_server_removes_its_cookie(keys: ApiKeys, key: str) -> None:
    client = serve_with(Login(keys, None, 3600), base="https://127.0.0.1")
    log_in(client, key)
    removed = client.post("/sam3d/logout").headers["set-cookie"]
    assert removed.startswith(f'__Host-{COOKIE}=""')
    assert "Max-Age=0" in removed
    assert "Secure" in removed
    assert client.get("/info/").status_code == 401


@pytest.mark.parametrize("path", ["/auth/token", "/sam3d/login"])
def test_a_visitor_can_send_no_files_and_no_long_form(client: TestClient, path: str) -> None:
    assert client.post(path, files={"username": ("a", b"x"), "password": ("b", b"x")}).status_code == 400
    assert client.post(path, files={"username": (None, "x" * 9_000), "password": (None, "x")}).status_code == 400


def test_a_user_logs_out(client: TestClient, key: str) -> None:
    log_in(client, key)
    secret = client.cookies[COOKIE]
    assert client.post("/sam3d/logout").status_code == 303
    assert client.get("/info/", headers={"Cookie": f"{COOKIE}={secret}"}).status_code == 401


def test_a_session_ends_when_its_key_is_revoked(client: TestClient, keys: ApiKeys, key: str) -> None:
    log_in(client, key)
    assert client.get("/info/").status_code == 200
    keys.revoke("anna")
    assert client.get("/info/").status_code == 401


@pytest.mark.parametrize("form", [{"name": "ben"}, {"key": "wrong"}, {"key": ""}, {"name": ""}])
def test_a_wrong_name_or_key_does_not_log_in(client: TestClient, key: str, form: dict[str, str]) -> None:
    answer = client.post("/sam3d/login", data={"name": "anna", "key": key, **form})
    assert answer.status_code == 401
    assert 'role="alert"' in answer.text
    assert "set-cookie" not in answer.headers


def test_another_site_cannot_log_a_browser_in_or_out(client: TestClient, key: str) -> None:
    for path in ("/sam3d/login", "/sam3d/logout"):
        answer = client.post(path, data={"name": "anna", "key": key}, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nSet-Cookie: x=1",
     "\t//evil.example", "/\t/evil.example", "evil", " /x", "/a b"],
)  # fmt: skip
def test_the_login_leads_to_paths_of_this_server_only(client: TestClient, key: str, wanted: str) -> None:
    assert local_path(wanted) == ""
    assert log_in(client, key, next=wanted).headers["location"] == "/sam3d/"


def test_what_a_link_says_is_shown_as_text(client: TestClient) -> None:
    page = client.get("/sam3d/login", params={"next": '/"><script>alert(1)</script>'}).text
    assert "<script>" not in page


def test_slicer_gets_a_token_for_name_and_key(client: TestClient, key: str) -> None:
    answer = client.post("/auth/token", data={"username": "anna", "password": key, "grant_type": "password"}).json()
    assert answer["token_type"] == "bearer"
    assert answer["access_token"] != key
    headers = {"Authorization": f"bearer {answer['access_token']}"}
    who = client.get("/auth/token/valid", headers=headers).json()
    assert who["username"] == "anna"
    assert "monailabel-annotator" in who["roles"]
    assert "monailabel-admin" not in who["roles"]
    assert client.get("/info/", headers=headers).status_code == 200
    assert client.post("/auth/token", data={"username": "anna", "password": "x"}).status_code == 401


def test_a_server_without_a_login_gives_no_token(tmp_path: Path) -> None:
    answer = serve_with(None).post("/auth/token", data={"username": "a", "password": "b"})
    assert (answer.status_code, answer.json()["access_token"]) == (200, None)
    assert "no login" in serve_with(None).get("/sam3d/login").text


@pytest.fixture
def provider() -> Iterator[Provider]:
    with fake_provider() as provider:
        yield provider


@pytest.fixture
def browser(provider: Provider) -> TestClient:
    return serve_with(Login(None, Oidc(provider.settings()), 3600))


def test_slicer_gets_a_token_for_a_password_of_the_login_server(browser: TestClient, provider: Provider) -> None:
    provider.token = provider.sign("monailabel-admin")
    answer = browser.post("/auth/token", data={"username": "anna", "password": "geheim"}).json()
    headers = {"Authorization": f"Bearer {answer['access_token']}"}
    assert browser.post("/train/sam3d", headers=headers).json() == {"name": "anna"}
    form = provider.forms[-1]
    assert (form["grant_type"], form["password"], form["client_id"]) == (["password"], ["geheim"], ["monailabel-app"])
    provider.token = None
    assert browser.post("/auth/token", data={"username": "anna", "password": "x"}).status_code == 401


def started(browser: TestClient) -> dict[str, list[str]]:
    answer = browser.get("/sam3d/login/start", params={"next": "/ohif/"})
    assert answer.status_code == 303
    assert "SameSite=lax" in answer.headers["set-cookie"]
    return parse_qs(urlsplit(answer.headers["location"]).query)


def test_a_login_server_that_hangs_keeps_no_other_route_waiting(provider: Provider, keys: ApiKeys, key: str) -> None:
    provider.token = provider.sign("monailabel-user")
    provider.held.clear()
    client = serve_with(Login(keys, Oidc(provider.settings()), 3600))
    form = {"username": "ben", "password": "x"}
    with client, ThreadPoolExecutor(60) as visitors:
        asked = [visitors.submit(client.post, "/auth/token", data=form) for _ in range(60)]
        most = OF_ONE_ADDRESS + MOST_WAITING
        wait_for(lambda: sum(answer.done() for answer in asked) == 60 - most)
        start = time.monotonic()
        assert client.get("/info/", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert client.post("/auth/token", data={"username": "anna", "password": key}).status_code == 200
        assert time.monotonic() - start < 5
        assert len(provider.forms) == OF_ONE_ADDRESS
        provider.held.set()
        answers = [answer.result() for answer in asked]
    assert sorted(answer.status_code for answer in answers) == [200] * most + [429] * (60 - most)
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) > 0
    assert "wait for the login server" in refused.json()["detail"]


def test_a_browser_logs_in_at_the_login_server(browser: TestClient, provider: Provider) -> None:
    asked = started(browser)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == ["http://127.0.0.1:8000/sam3d/login/callback"]
    provider.token = provider.sign("monailabel-user")
    answer = browser.get("/sam3d/login/callback", params={"state": asked["state"][0], "code": "c"})
    assert (answer.status_code, "SameSite=strict" in answer.headers["set-cookie"]) == (200, True)
    assert re.search(r'http-equiv="refresh" content="0;url=/ohif/"', answer.text)
    assert len(provider.forms[-1]["code_verifier"][0]) >= 43
    assert browser.get("/info/").json() == {"name": "anna"}


def test_a_login_that_was_not_started_in_this_browser_is_refused(browser: TestClient, provider: Provider) -> None:
    provider.token = provider.sign("monailabel-user")
    state = started(browser)["state"][0]
    for params in ({"state": "other", "code": "c"}, {"state": state}, {"state": state, "error": "denied"}, {}):
        assert browser.get("/sam3d/login/callback", params=params).status_code == 401
    assert browser.get("/sam3d/login/callback", params={"state": "é", "code": "c"}).status_code == 401
    browser.cookies.clear()
    assert browser.get("/sam3d/login/callback", params={"state": state, "code": "c"}).status_code == 401
    assert provider.forms == []


def test_a_code_counts_once(browser: TestClient, provider: Provider) -> None:
    provider.token = provider.sign("monailabel-user")
    query = {"state": started(browser)["state"][0], "code": "c"}
    cookie = {"Cookie": f"sam3d_login={query['state']}"}
    assert browser.get("/sam3d/login/callback", params=query, headers=cookie).status_code == 200
    assert browser.get("/sam3d/login/callback", params=query, headers=cookie).status_code == 401


def test_a_user_without_a_role_does_not_get_in(browser: TestClient, provider: Provider) -> None:
    provider.token = provider.sign("other")
    answer = browser.get("/sam3d/login/callback", params={"state": started(browser)["state"][0], "code": "c"})
    assert (answer.status_code, "no role" in answer.text) == (403, True)


@pytest.fixture
def address(client: TestClient) -> Iterator[str]:
    """The server of `client` on a port, for clients that know no other way."""
    server = uvicorn.Server(uvicorn.Config(client.app, port=free_port(), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait(lambda: server.started, "the server starts", 30)
        yield f"http://127.0.0.1:{server.config.port}"
    finally:
        server.should_exit = True
        thread.join()


def test_monai_label_s_client_logs_in(address: str, key: str) -> None:
    client = MONAILabelClient(address)
    assert client.auth_enabled()
    assert not client.auth_valid_token()
    with pytest.raises(MONAILabelClientException):
        client.info()
    with pytest.raises(MONAILabelClientException):
        client.auth_token("anna", "wrong")
    client.update_auth(client.auth_token("anna", key))
    assert client.auth_valid_token()
    assert client.info() == {"name": "anna"}
