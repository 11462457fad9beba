"""OHIF's files, the log, and the pages that replace MONAI Label's."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import HTTPException
from fastapi.responses import FileResponse
from monailabel.config import settings
from starlette.testclient import TestClient

from lib.patches.ohif import CONFIG, ohif_file
from tests.helpers.login_helpers import serve_with


@pytest.fixture(scope="module")
def client() -> TestClient:
    return serve_with(None)


@pytest.fixture
def viewer(tmp_path: Path) -> Path:
    folder = tmp_path / "ohif"
    (folder / "assets").mkdir(parents=True)
    for name in ("index.html", CONFIG, "assets/icon.png"):
        (folder / name).write_text(name)
    (tmp_path / "secret").write_text("secret")
    return folder


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("", "index.html"),
        ("viewer", "index.html"),
        ("assets/icon.png", "assets/icon.png"),
        ("assets", "index.html"),
        ("../secret", "index.html"),
        ("assets/../../secret", "index.html"),
        ("/etc/passwd", "index.html"),
        ("a\0b", "index.html"),
    ],
)
def test_ohif_s_files_are_sent_and_its_start_page_for_other_paths(viewer: Path, path: str, sent: str) -> None:
    answer = ohif_file(viewer, viewer.parent / "extension", path)
    assert isinstance(answer, FileResponse)
    assert Path(answer.path) == viewer / sent


def test_scripts_in_the_folder_of_the_extension_come_with_ohif_s_configuration(viewer: Path) -> None:
    folder = viewer.parent / "extension"
    folder.mkdir()
    for name in ("b.js", "a.js", "notes.txt"):
        (folder / name).write_text(name)
    answer = ohif_file(viewer, viewer.parent / "extension", CONFIG)
    assert bytes(answer.body).decode().split("\n") == [CONFIG, "a.js", "b.js"]


def test_an_installation_without_ohif_is_reported(tmp_path: Path) -> None:
    with pytest.raises(HTTPException, match="no OHIF"):
        ohif_file(tmp_path, tmp_path, "")


def test_the_start_page_leads_to_the_page(client: TestClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/sam3d/")


def test_the_routes_are_listed_without_scripts(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "/info/" in page
    assert "<script" not in page
    assert "//" not in page.replace("<!doctype", "")


@pytest.mark.parametrize("path", ["/static/ohif/index.html", "/static/favicon.ico", "/redoc"])
def test_files_have_one_address(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_icon_is_sent(client: TestClient) -> None:
    assert client.get("/favicon.ico").headers["content-type"] == "image/x-icon"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "MONAI_LABEL_APP_DIR", str(tmp_path))
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "app.log"
    path.write_bytes(b"first\n<b>second</b>\nthird \xff\n")
    return path


def test_the_last_lines_of_the_log_are_plain_text(client: TestClient, log: Path) -> None:
    answer = client.get("/logs/", params={"lines": 2, "html": "true"})
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text == "<b>second</b>\nthird \ufffd\n"
    assert client.get("/logs/", params={"lines": 0}).text.startswith("first")


@pytest.mark.parametrize("lines", ["-1", "x", "1e9", "9" * 30])
def test_a_wrong_number_of_lines_is_rejected(client: TestClient, log: Path, lines: str) -> None:
    assert client.get("/logs/", params={"lines": lines}).status_code == 400


def test_a_missing_log_is_reported_without_its_path(client: TestClient, log: Path) -> None:
    log.unlink()
    answer = client.get("/logs/")
    assert (answer.status_code, str(log.parent) in answer.text) == (404, False)


def test_a_server_without_a_gpu_reports_it(client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = client.get("/logs/gpu")
    assert (answer.status_code, "no GPU" in answer.json()["detail"]) == (404, True)


@pytest.mark.parametrize(("script", "status", "text"), [("echo busy", 200, "busy"), ("exit 9", 503, "not answer")])
def test_the_state_of_the_gpus_is_that_of_nvidia_smi(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, status: int, text: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    answer = client.get("/logs/gpu")
    assert (answer.status_code, text in answer.text) == (status, True)
