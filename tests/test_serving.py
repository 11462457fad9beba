"""Servers in processes of their own: Python's http.server stands for them."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from sam3d_label.serving import ServerStartError, free_port, serving, start_server

WITH_A_CHILD = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
from http.server import HTTPServer, SimpleHTTPRequestHandler
HTTPServer(("127.0.0.1", int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()
"""


def http_server(port: int) -> list[str]:
    return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]


def test_it_answers_in_the_block_and_has_ended_after_it(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "info").write_text("ready")
    url = f"http://127.0.0.1:{port}"
    with serving(http_server(port), url, tmp_path / "log", ready="/info", folder=tmp_path) as server:
        assert server.url == url
        with urllib.request.urlopen(f"{url}/info") as answer:
            assert answer.read() == b"ready"
    assert not server.process.is_running()
    assert "GET /info" in (tmp_path / "log").read_text()


def test_what_it_has_started_ends_with_it(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", WITH_A_CHILD, str(port)]
    with serving(command, f"http://127.0.0.1:{port}", tmp_path / "log", ready="/") as server:
        (child,) = server.children()
    assert not psutil.pid_exists(child.pid) or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ([sys.executable, "-c", "print('the disk is full'); raise SystemExit(1)"], "ended.*\n.*the disk is full"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "no answer at"),
    ],
)
def test_a_server_that_does_not_start_says_why(tmp_path: Path, command: list[str], reason: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServerStartError, match=reason), serving(command, url, tmp_path / "log", seconds=2):
        pass


def test_an_error_instead_of_an_answer_is_not_waited_for(tmp_path: Path) -> None:
    port = free_port()
    started = serving(http_server(port), f"http://127.0.0.1:{port}", tmp_path / "log", ready="/info/", folder=tmp_path)
    with pytest.raises(ServerStartError, match="/info/ answers 404"), started:
        pass


def test_the_command_serves_an_app_on_this_machine_only() -> None:
    command = start_server(Path("app"), 8000, "--studies", "s", program=["monailabel"])
    assert command[:4] == ["monailabel", "start_server", "--app", "app"]
    assert command[4:] == ["--host", "127.0.0.1", "--port", "8000", "--studies", "s"]
