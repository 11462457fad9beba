"""The way to the DICOM server: what passes in either direction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi import HTTPException
from monailabel.config import settings
from starlette.testclient import TestClient

from lib.server.routes.proxy import MOST_OF_ONE, decoded, is_accepted
from tests.helpers.login_helpers import serve_with

SECRET = "s3cr3t"


class Archive:
    """A DICOM server that answers each request with `status`, `headers` and `body`, and keeps what it was sent."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.reset()

    def reset(self) -> None:
        self.seen.clear()
        self.held = threading.Event()
        self.held.set()
        self.status, self.body = 200, b"[]"
        self.headers = {"Content-Type": "application/dicom+json"}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Archive, str]]:
    archive = Archive()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            archive.seen.append((self.command, self.path, dict(self.headers), sent))
            archive.held.wait(30)
            self.send_response(archive.status)
            for name, value in {"Content-Length": str(len(archive.body)), **archive.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(archive.body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 100

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield archive, f"http://127.0.0.1:{server.server_port}/dicom-web"
    server.shutdown()
    server.server_close()


@pytest.fixture
def archive(running: tuple[Archive, str], monkeypatch: pytest.MonkeyPatch) -> Archive:
    archive, url = running
    archive.reset()
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", url)
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_USERNAME", "orthanc")
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_PASSWORD", SECRET)
    return archive


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once something has happened in another thread."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def client() -> TestClient:
    return serve_with(None)


READ = [
    "qido/studies",
    "qido/series",
    "qido/studies/1.2.840.3/series",
    "qido/studies/1.2/series/3.4/instances",
    "wado/studies/1.2/metadata",
    "wado/studies/1.2/series/3.4/metadata",
    "wado/studies/1.2/series/3.4/thumbnail",
    "wado/studies/1.2/series/3.4/instances/5.6",
    "wado/studies/1.2/series/3.4/instances/5.6/frames/1",
    "wado/studies/1.2/series/3.4/instances/5.6/frames/1,2,3",
    "wado/studies/1.2/series/3.4/instances/5.6/frames/1/rendered",
    "wado/studies/1.2/series/3.4/instances/5.6/rendered",
    "wado/studies/1.2/series/3.4/instances/5.6/bulk/00420011",
    "wado/bulkdata/a1b2-c3",
    "studies",
]


@pytest.mark.parametrize("path", READ)
def test_dicomweb_is_passed_on_with_its_query(client: TestClient, archive: Archive, path: str) -> None:
    answer = client.get(f"/proxy/dicom/{path}?PatientID=P%202&x=1&x=2")
    assert (answer.status_code, answer.content) == (200, b"[]")
    assert answer.headers["content-type"] == "application/dicom+json"
    asked = path.split("/", 1)[1] if path.split("/")[0] in ("qido", "wado") else path
    assert [seen[:2] for seen in archive.seen] == [("GET", f"/dicom-web/{asked}?PatientID=P%202&x=1&x=2")]


@pytest.mark.parametrize(
    "path",
    ["system", "../system", "%2e%2e/system", "%252e%252e/system", "%25252e%25252e/system", "studies/../../system",
     "studies/..%2f..%2fsystem", "..;/system", "studies;x/1", "studies/1.2;/series", ".%2e/system", "..%5csystem",
     "..%255csystem", "@127.0.0.1:1/x", "/127.0.0.1:1/studies", "http://127.0.0.1:1/studies", "evil.html",
     "studies%0d%0aX-Evil:%201", "studies%00", "studies%3fa=1%23", "studies%23", "studies/1.2/series/evil",
     "studies/1.2/../3", "studies/./1.2", "studies//1.2", "studies/..", "studies/1..%2f", "instances/../system",
     "studies/1.2/series/3/instances/4/frames/x", "studies/1.2/series/3/instances/4/bulk/../../..", "tools/reset",
     "studies%0a", "studies/1.2%0a",
     "studies/1.2/series/3/instances/4/bulk/..%2fx", "Studies", "studies/%31%2e%32/archive", "studies/\u0661"],
)  # fmt: skip
@pytest.mark.parametrize("service", ["wado/", "qido/", ""])
def test_any_other_path_stays_here(client: TestClient, archive: Archive, service: str, path: str) -> None:
    as_sent = path.replace("..", ".%2e").replace("/./", "/%2e/")  # the test's client would resolve them itself
    answer = client.get(f"/proxy/dicom/{service}{as_sent}")
    assert answer.status_code in (400, 404)
    assert archive.seen == []


def test_only_the_server_s_own_credentials_are_sent(client: TestClient, archive: Archive) -> None:
    theirs = {"Cookie": "c=1", "X-Forwarded-For": "1.2.3.4", "X-Evil": "1", "Accept": "application/json", "Range": "x"}
    client.get("/proxy/dicom/wado/studies", headers=theirs)
    sent = {name.lower(): value for name, value in archive.seen[0][2].items()}
    assert sent["authorization"].startswith("Basic ")
    assert sent["accept"] == "application/json"
    assert not {"cookie", "x-forwarded-for", "x-evil", "range", "origin", "referer"} & sent.keys()
    assert "c=1" not in str(archive.seen)


def test_metadata_asked_of_the_search_service_comes_from_the_other(
    client: TestClient, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_QIDO_PREFIX", "qido-rs")
    monkeypatch.setattr(settings, "MONAI_LABEL_WADO_PREFIX", "wado-rs")
    client.get("/proxy/dicom/qido/studies/1.2/series/3.4/metadata")
    client.get("/proxy/dicom/qido/studies")
    assert [seen[1] for seen in archive.seen] == [
        "/dicom-web/wado-rs/studies/1.2/series/3.4/metadata",
        "/dicom-web/qido-rs/studies",
    ]


@pytest.mark.parametrize(
    ("kind", "accepted"),
    [
        ("application/dicom", True),
        ("application/dicom+json; charset=utf-8", True),
        ("Application/JSON", True),
        ('multipart/related; type="application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"; boundary=a', True),
        ('multipart/related; type="text/html; application/dicom"; boundary=a', False),
        ('multipart/related; type="application/octet-stream"; boundary=x', True),
        ("multipart/related; boundary=x; type=application/dicom", True),
        ("multipart/related;type=image/jpeg", True),
        ("image/png", True),
        ("text/html", False),
        ("image/svg+xml", False),
        ("application/xhtml+xml", False),
        ("application/xml", False),
        ("text/javascript", False),
        ("multipart/related; boundary=x", False),
        ('multipart/related; x="; type=application/dicom"; type=text/html', False),
        ("multipart/related; type=application/dicom; type=text/html", False),
        ('multipart/related; type="text/html"', False),
        ("multipart/x-mixed-replace; boundary=x", False),
        ("text/html, application/json", False),
        ("application/json, text/html", False),
        ("", False),
    ],
)
def test_only_data_and_pictures_come_back(client: TestClient, archive: Archive, kind: str, accepted: bool) -> None:
    assert is_accepted(kind) == accepted
    archive.headers = {"Content-Type": kind}
    answer = client.get("/proxy/dicom/wado/studies")
    assert answer.status_code == (200 if accepted else 502)
    assert "html" not in answer.headers["content-type"]


def test_headers_of_the_dicom_server_do_not_come_back(client: TestClient, archive: Archive) -> None:
    archive.headers |= {
        "Set-Cookie": "evil=1",
        "Access-Control-Allow-Origin": "*",
        "Content-Security-Policy": "x",
        "Location": "https://evil.example",
        "Clear-Site-Data": "*",
        "Content-Disposition": "inline",
    }
    answer = client.get("/proxy/dicom/wado/studies")
    assert answer.status_code == 200
    assert not {"set-cookie", "access-control-allow-origin", "location", "clear-site-data"} & set(answer.headers.keys())
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(client: TestClient, archive: Archive, status: int) -> None:
    archive.status, archive.headers = status, {"Location": "/system", "Content-Type": "application/json"}
    assert client.get("/proxy/dicom/wado/studies").status_code == 502
    assert len(archive.seen) == 1


@pytest.mark.parametrize(("status", "answered"), [(404, 404), (400, 400), (401, 502), (403, 502), (500, 502)])
def test_errors_of_the_dicom_server_are_reported_without_its_page(
    client: TestClient, archive: Archive, status: int, answered: int
) -> None:
    archive.status, archive.headers, archive.body = status, {"Content-Type": "text/html"}, b"<h1>/srv/x</h1>"
    answer = client.get("/proxy/dicom/wado/studies")
    assert (answer.status_code, answer.json()) == (answered, {"detail": f"The DICOM server answered {status}"})


def test_nothing_found_comes_back_as_nothing(client: TestClient, archive: Archive) -> None:
    archive.status, archive.headers, archive.body = 204, {}, b""
    answer = client.get("/proxy/dicom/qido/studies")
    assert (answer.status_code, answer.content) == (204, b"")


STOW = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'}


def test_dicom_files_are_stored(client: TestClient, archive: Archive) -> None:
    for path in ("stow/studies", "stow/studies/1.2", "wado/studies"):
        archive.seen.clear()
        assert client.post(f"/proxy/dicom/{path}", content=b"--x--", headers=STOW).status_code == 200
        method, asked, headers, body = archive.seen[0]
        assert (method, asked, body) == ("POST", f"/dicom-web/{path.split('/', 1)[1]}", b"--x--")
        assert headers["Content-Type"] == STOW["Content-Type"]


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("qido/studies", STOW["Content-Type"], 405),
        ("stow/series", STOW["Content-Type"], 400),
        ("stow/studies/1.2/series", STOW["Content-Type"], 400),
        ("stow/tools/shutdown", STOW["Content-Type"], 400),
        ("stow/studies/..%2f..%2ftools/shutdown", STOW["Content-Type"], 400),
        ("stow/studies", "text/plain", 415),
        ("stow/studies", "application/x-www-form-urlencoded", 415),
    ],
)
def test_nothing_else_is_sent(client: TestClient, archive: Archive, path: str, kind: str, status: int) -> None:
    answer = client.post(f"/proxy/dicom/{path}", content=b"x", headers={"Content-Type": kind})
    assert (answer.status_code, archive.seen) == (status, [])


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_no_other_method_is_passed_on(client: TestClient, archive: Archive, method: str) -> None:
    assert client.request(method, "/proxy/dicom/wado/studies/1.2").status_code == 405
    assert archive.seen == []


def test_files_are_not_read_from_where_they_are_stored(client: TestClient, archive: Archive) -> None:
    assert client.get("/proxy/dicom/stow/studies").status_code == 405
    assert archive.seen == []


def test_a_dicom_server_that_hangs_keeps_no_other_route_waiting(client: TestClient, archive: Archive) -> None:
    archive.held.clear()
    with client, ThreadPoolExecutor(60) as users:
        waiting = [users.submit(client.get, "/proxy/dicom/qido/studies") for _ in range(60)]
        wait_for(lambda: len(archive.seen) == MOST_OF_ONE)
        start = time.monotonic()
        for path in ("/info/", "/auth/"):
            assert client.get(path).status_code == 200
        assert time.monotonic() - start < 5
        assert len(archive.seen) == MOST_OF_ONE
        archive.held.set()
        assert {answer.result().status_code for answer in waiting} == {200}
    assert len(archive.seen) == 60


def test_a_dicom_server_that_is_away_is_reported(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", "http://127.0.0.1:9/dicom-web")
    answer = client.get("/proxy/dicom/wado/studies")
    assert (answer.status_code, "does not answer" in answer.json()["detail"]) == (503, True)


def test_a_server_with_a_folder_has_no_dicom_server(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", "/data")
    assert client.get("/proxy/dicom/wado/studies").status_code == 404


def test_a_path_is_decoded_until_it_no_longer_changes() -> None:
    path = "a/../b"
    for _ in range(5):
        assert decoded(path) == "a/../b"
        path = path.replace("%", "%25").replace(".", "%2e").replace("/", "%2F")


@pytest.mark.parametrize("rounds", [9, 30_000])
def test_a_path_that_is_encoded_too_often_is_refused_at_once(rounds: int) -> None:
    start = time.monotonic()
    with pytest.raises(HTTPException, match="encoded more than 8 times"):
        decoded("%" + "25" * rounds + "2e")
    assert time.monotonic() - start < 1
