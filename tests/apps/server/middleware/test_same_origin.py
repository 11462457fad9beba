"""Which hosts and origins a server answers."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.helpers.login_helpers import serve_with


@pytest.fixture(scope="module")
def client() -> TestClient:
    return serve_with(None, hosts=("sam3d.example.org",))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "127.0.0.1:9", "localhost:8000", "LOCALHOST", "[::1]:8000", "127.9.9.9",
     "sam3d.example.org", "SAM3D.example.org.:443"],
)  # fmt: skip
def test_a_request_for_this_server_is_answered(client: TestClient, host: str) -> None:
    assert client.get("/info/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "0.0.0.0",
     "[::]", "", "a@localhost", "localhost#.evil.example", "localhost/", "local host", "localhost:x",
     "xn--localhst-7bb", "localhost,evil.example", "evil.example?localhost", "2130706433",
     "sam3d.example.org.evil.example", "[::1].evil.example"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_request_for_another_host_is_refused(client: TestClient, host: str, method: str) -> None:
    assert client.request(method, "/train/sam3d", headers={"Host": host}).status_code == 421


def test_two_hosts_are_refused(client: TestClient) -> None:
    headers = [("Host", "127.0.0.1"), ("Host", "evil.example")]
    assert client.get("/info/", headers=headers).status_code == 421


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:8000", "http://127.0.0.1",
     "file://", "http://127.0.0.1:8000.evil.example", "http://127.0.0.1:8000@evil.example", "", "http://[", "x",
     "chrome-extension://127.0.0.1:8000", "http://127.0.0.1:99999", "http://evil.com\\@127.0.0.1:8000",
     "http://evil.com@127.0.0.1:8000", "http://127.0.0.1:8000/", "http://127.0.0.1:8000?a", "http://127.0.0.1:8000#a",
     "http://127.0.0.1:8000/evil.com", "http://127.0.0.1:8000 http://evil.com"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_page_of_another_origin_cannot_change_anything(client: TestClient, origin: str, method: str) -> None:
    answer = client.request(method, "/train/sam3d", headers={"Origin": origin})
    assert answer.status_code == 403
    assert not any(name.startswith("access-control-") for name in answer.headers)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "whatever"])
def test_a_browser_that_names_another_site_cannot_change_anything(client: TestClient, site: str) -> None:
    assert client.post("/train/sam3d", headers={"Sec-Fetch-Site": site}).status_code == 403


def test_the_server_s_own_pages_and_programs_change_things(client: TestClient) -> None:
    for headers in ({}, {"Origin": "http://127.0.0.1:8000"}, {"Sec-Fetch-Site": "same-origin"}):
        assert client.post("/train/sam3d", headers=headers).status_code == 200


def test_pages_of_a_proxy_that_speaks_https_change_things(client: TestClient) -> None:
    for host, origin in (
        ("sam3d.example.org", "https://sam3d.example.org"),
        ("sam3d.example.org:443", "https://sam3d.example.org"),
        ("sam3d.example.org:8443", "https://sam3d.example.org:8443"),
    ):
        assert client.post("/train/sam3d", headers={"Host": host, "Origin": origin}).status_code == 200


def test_an_insecure_page_cannot_change_a_secure_server() -> None:
    client = serve_with(None, base="https://127.0.0.1")
    assert client.post("/train/sam3d", headers={"Origin": "http://127.0.0.1"}).status_code == 403
    assert client.post("/train/sam3d", headers={"Origin": "https://127.0.0.1"}).status_code == 200


def test_no_origin_may_read_answers_and_preflights_fail(client: TestClient) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:8000"):
        answer = client.get("/info/", headers={"Origin": origin})
        assert not any(name.startswith("access-control-") for name in answer.headers)
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert client.options("/train/sam3d", headers=asked).status_code in (403, 405)


def test_a_page_of_another_site_may_link_here_but_not_load_anything(client: TestClient) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/info/", headers=link).status_code == 200
    for mode in ("no-cors", "cors"):
        load = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}
        assert client.get("/info/", headers=load).status_code == 403


def test_headers_of_a_proxy_do_not_change_the_host(client: TestClient) -> None:
    headers = {"Host": "evil.example", "X-Forwarded-Host": "127.0.0.1:8000"}
    assert client.get("/info/", headers=headers).status_code == 421
