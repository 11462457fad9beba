"""Bodies that are too large or no strict JSON are answered before a route reads them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, UploadFile
from starlette.testclient import TestClient

from lib.configs.limits import RequestLimits
from lib.server.access.identity import LOCAL_USER, VISITOR
from lib.server.body import FORM_OVERHEAD, VISITOR_BYTES, BodyLimit

MIB = 2**20
LIMITS = RequestLimits(max_upload_mb=1, max_json_kb=4)


@pytest.fixture(scope="module")
def client() -> TestClient:
    api = FastAPI()
    api.add_middleware(BodyLimit, limits=LIMITS)

    @api.post("/json")
    def read_json(body: dict[str, Any]) -> dict[str, Any]:
        return body

    @api.put("/upload")
    def upload(file: UploadFile) -> int:
        return len(file.file.read())

    @api.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    return TestClient(api, raise_server_exceptions=False)


def chunks(size: int) -> Iterator[bytes]:
    """A body of so many bytes, without an announced length."""
    for _ in range(size // 2**16):
        yield bytes(2**16)


def test_what_is_allowed_arrives_as_it_was_sent(client: TestClient) -> None:
    assert client.post("/json", json={"a": [1, {"b": "ü"}]}).json() == {"a": [1, {"b": "ü"}]}
    assert client.put("/upload", files={"file": bytes(MIB)}).json() == MIB
    assert client.post("/raw", content=chunks(MIB), headers={"content-type": "application/dicom"}).json() == MIB


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("path", ["/raw", "/json"])
def test_a_body_that_is_too_large_is_413_with_or_without_its_length(
    client: TestClient, path: str, announced: bool
) -> None:
    size = MIB + FORM_OVERHEAD + 2**16
    kind = {"content-type": "application/json" if path == "/json" else "application/octet-stream"}
    answer = client.post(path, content=bytes(size) if announced else chunks(size), headers=kind)
    assert answer.status_code == 413
    assert "--conf max_" in answer.json()["detail"]


def test_a_form_that_is_too_large_is_413_and_leaves_no_file(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    form = b"--x\r\nContent-Disposition: form-data; name=file; filename=a.nii\r\n\r\n"
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for content in (form + bytes(3 * MIB), (part for part in (form, *chunks(3 * MIB)))):
        assert client.put("/upload", content=content, headers=kind).status_code == 413
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("body", ['{"x": NaN}', '{"x": 1e999}', '{"a":' * 600 + "1" + "}" * 600, "{", '"\\u0000"'])
def test_json_that_is_not_strict_is_400(client: TestClient, body: str) -> None:
    for kind in ("application/json", "application/json; charset=utf-8", "APPLICATION/geo+JSON"):
        answer = client.post("/json", content=body, headers={"content-type": kind})
        assert answer.status_code == 400
        assert "body" in answer.json()["detail"]


def test_a_length_that_is_a_lie_does_not_help(client: TestClient) -> None:
    answer = client.post(
        "/raw", content=chunks(2 * MIB), headers={"content-length": "10", "content-type": "application/octet-stream"}
    )
    assert answer.status_code == 413


def test_somebody_who_is_not_logged_in_can_send_little() -> None:
    api = FastAPI()
    api.add_middleware(BodyLimit, limits=LIMITS)

    @api.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    sender = {"identity": VISITOR}

    async def with_identity(scope: Any, receive: Any, send: Any) -> None:
        await api({**scope, "state": dict(sender)}, receive, send)

    client = TestClient(with_identity)
    kind = {"content-type": "application/octet-stream"}
    assert client.post("/raw", content=bytes(VISITOR_BYTES), headers=kind).json() == VISITOR_BYTES
    for body in (bytes(VISITOR_BYTES + 1), chunks(2 * VISITOR_BYTES)):
        answer = client.post("/raw", content=body, headers=kind)
        assert answer.status_code == 413
        assert "log in" in answer.json()["detail"]
    sender["identity"] = LOCAL_USER
    assert client.post("/raw", content=bytes(2 * VISITOR_BYTES), headers=kind).json() == 2 * VISITOR_BYTES
