"""Multipart forms are read within bounds: memory, open files and time, whatever a client sends."""

from __future__ import annotations

import io
import os
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, File, Form, UploadFile
from starlette.testclient import TestClient

from lib.errors import install_error_handlers
from lib.server.forms import Section, SharedFile
from lib.server.routes.form_routes import form_route

MOST_FILES = 1_500


@pytest.fixture(scope="module")
def client() -> TestClient:
    routes = APIRouter(route_class=form_route(2**20, max_files=MOST_FILES))

    @routes.post("/")
    def read(files: list[UploadFile] = File(default=[]), text: str = Form(default="")) -> dict[str, Any]:  # noqa: B008
        opened = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        held = [file.file.read() for file in files]
        return {"sizes": [len(each) for each in held], "ends": [each[-1:].hex() for each in held], "opened": opened}

    api = FastAPI()
    install_error_handlers(api)
    api.include_router(routes)
    return TestClient(api, raise_server_exceptions=False)


def test_files_keep_their_content_and_order(client: TestClient) -> None:
    sizes = [0, 1, 3, 2**16, 2**20 + 1, 0, 7]
    sent = [("files", (f"{n}.bin", bytes([n]) * size)) for n, size in enumerate(sizes)]
    answer = client.post("/", files=sent, data={"text": "ü"}).json()
    assert answer["sizes"] == sizes
    assert answer["ends"] == [bytes([n]).hex() * bool(size) for n, size in enumerate(sizes)]


def test_more_than_a_thousand_files_arrive_and_need_one_open_file(client: TestClient) -> None:
    before = client.post("/", files=[("files", ("a", b"a"))]).json()["opened"]
    answer = client.post("/", files=[("files", (f"{n}.dcm", b"x" * 2_000)) for n in range(MOST_FILES)]).json()
    assert answer["sizes"] == [2_000] * MOST_FILES
    assert answer["opened"] <= before + 1


def test_too_many_files_are_400_with_the_number_that_is_allowed(client: TestClient) -> None:
    answer = client.post("/", files=[("files", (f"{n}.dcm", b"x")) for n in range(MOST_FILES + 1)])
    assert answer.status_code == 400
    assert f"{MOST_FILES}" in answer.json()["detail"]


@pytest.mark.parametrize("charset", ["punycode", "idna", "zip", "unicode_escape", "no-such", "utf-8\0", "."])
def test_a_text_in_an_encoding_that_takes_minutes_is_not_read(client: TestClient, charset: str) -> None:
    text = b"a" * 400_000 + b"-" + b"a" * 400_000
    body = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n' + text + b"\r\n--x--\r\n"
    begin = time.monotonic()
    answer = client.post(
        "/", content=body, headers={"content-type": f'multipart/form-data; boundary=x; charset="{charset}"'}
    )
    assert answer.status_code == 400
    assert "UTF-8" in answer.json()["detail"]
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"--x", "multipart/form-data"),
        (b"--x", "multipart/form-data; boundary="),
        (b"--x\r\n\r\nno name\r\n--x--", "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n' + b"A: b\r\n" * 99,
            "multipart/form-data; boundary=x",
        ),
        (b"no form", "multipart/form-data; boundary=x"),
        (b"--x", f"multipart/form-data; boundary={'x' * 999}"),
    ],
)
def test_anything_but_a_form_is_400(client: TestClient, body: bytes, kind: str) -> None:
    answer = client.post("/", content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_a_full_disk_for_temporary_files_is_507(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "r+b", buffering=0))  # noqa: SIM115
    answer = client.post("/", files=[("files", ("a", b"x" * 100))])
    assert answer.status_code == 507
    assert "The upload" in answer.json()["detail"]


def test_a_section_reads_as_a_file_of_its_own() -> None:
    shared = SharedFile()
    first, second = Section(shared), Section(shared)
    with io.BytesIO() as archive:
        with zipfile.ZipFile(archive, "w") as made:
            made.writestr("a.txt", "content")
        whole = archive.getvalue()
    first.write(b"before")
    second.write(whole[:10])
    second.write(whole[10:])
    with zipfile.ZipFile(second) as opened:  # reads and seeks only
        assert opened.read("a.txt") == b"content"
    assert second.seek(-4, os.SEEK_END) == len(whole) - 4
    assert (second.read(), second.read(1)) == (whole[-4:], b"")
    first.seek(0)
    assert first.read(100) == b"before"


def test_the_shared_file_is_removed_with_its_last_section() -> None:
    shared = SharedFile()
    first, second = Section(shared), Section(shared)
    first.write(b"one")
    second.close()
    second.close()
    first.seek(0)
    assert first.read() == b"one"
    first.close()
    with pytest.raises(ValueError, match="closed"):
        shared.write(b"more")


def test_a_section_that_is_not_the_last_does_not_grow_into_the_next() -> None:
    shared = SharedFile()
    first, second = Section(shared), Section(shared)
    first.write(b"one")
    second.write(b"two")
    with pytest.raises(ValueError, match="written once"):
        first.write(b"more")
    second.seek(0)
    assert second.read() == b"two"
