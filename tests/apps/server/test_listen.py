"""Where the server listens, and when it does not start."""

from __future__ import annotations

import socket

import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from lib.server import listen
from sam3d_label.errors import Sam3dError

START = ["start_server", "--app", "a", "--studies", "s"]


class Refused(Exception):  # noqa: N818
    """Stands in for the end of the process."""


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch):
    """Starts a server with arguments and returns its configuration."""

    def refuse(reason: str) -> None:
        raise Refused(reason)

    def start(*arguments: str, host: str = "0.0.0.0", has_login: bool = False, **config) -> uvicorn.Config:
        server = uvicorn.Server(uvicorn.Config(FastAPI(), host=host, **{"port": 0, **config}))
        server.config.load()
        monkeypatch.setattr(listen, "running_server", lambda: server)
        monkeypatch.setattr("sys.argv", ["monailabel", *START, *arguments])
        assert listen.prepare(has_login) == server.config.host
        return server.config

    monkeypatch.setattr(listen, "refuse", refuse)
    return start


def test_without_an_address_the_server_listens_on_this_machine_only(start) -> None:
    assert start().host == "127.0.0.1"
    assert start(has_login=True).host == "127.0.0.1"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_an_address_of_this_machine_needs_no_login(start, host: str) -> None:
    assert start("--host", host, host=host).host == host


@pytest.mark.parametrize(
    ("arguments", "host"),
    [
        (["--host", "0.0.0.0"], "0.0.0.0"),
        (["--host=0.0.0.0"], "0.0.0.0"),
        (["--ho", "0.0.0.0"], "0.0.0.0"),
        (["-i", "0.0.0.0"], "0.0.0.0"),
        (["-i0.0.0.0"], "0.0.0.0"),
        (["--host", "::"], "::"),
        (["--host", "::ffff:0.0.0.0"], "::ffff:0.0.0.0"),
        (["--host", ""], ""),
        (["--host", "10.1.2.3"], "10.1.2.3"),
        (["--host", "no-such-name.invalid"], "no-such-name.invalid"),
    ],
)
def test_any_other_address_needs_a_login(start, arguments: list[str], host: str) -> None:
    with pytest.raises(Refused, match="--conf api_keys"):
        start(*arguments, host=host)
    assert start(*arguments, host=host, has_login=True).host == host


def test_sockets_of_other_kinds_need_a_login(start) -> None:
    with pytest.raises(Refused, match="/run/x"):
        start("--host", "127.0.0.1", host="127.0.0.1", uds="/run/x")


def test_another_way_to_start_uvicorn_is_checked_too(start, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not listen.is_default_host(["monailabel.app:app"])


def test_a_port_that_is_taken_is_reported_in_one_line(start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        other.listen()
        with pytest.raises(Refused, match=f"Port {port} of 127.0.0.1 is taken by another program.*--port"):
            start(port=port)
    assert start(port=port).port == port


@pytest.mark.parametrize("prefix", ["", "/monai", "/a/b-c_d.e~1"])
def test_a_path_prefix_is_taken(prefix: str) -> None:
    assert listen.check_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "prefix", ["/monai/", "monai", "/", "//x", "/a%20b", "/../x", "/a/./b", "/a b", "/a\n", "/{x}"]
)
def test_a_path_prefix_that_leads_nowhere_is_refused(prefix: str) -> None:
    with pytest.raises(Sam3dError, match="MONAI_LABEL_API_STR"):
        listen.check_prefix(prefix)


def test_workers_are_refused(start) -> None:
    with pytest.raises(Refused, match="--workers 2 is not supported"):
        start(workers=2)


def test_headers_of_proxies_count_only_where_the_proxy_is_named(start, monkeypatch: pytest.MonkeyPatch) -> None:
    config = start()
    assert not isinstance(config.loaded_app, ProxyHeadersMiddleware)
    server = uvicorn.Server(config)
    monkeypatch.setattr(listen, "running_server", lambda: server)
    listen.prepare(False, ("10.0.0.0/24",))
    assert isinstance(config.loaded_app, ProxyHeadersMiddleware)
    assert "10.0.0.7" in config.loaded_app.trusted_hosts
    assert "127.0.0.1" not in config.loaded_app.trusted_hosts


def test_the_running_server_is_found() -> None:
    server = uvicorn.Server(uvicorn.Config(FastAPI()))
    assert listen.running_server() is server


def test_a_server_that_listens_everywhere_has_the_names_of_its_machine() -> None:
    assert "127.0.0.1" in listen.own_hosts("0.0.0.0")
    assert listen.own_hosts("10.1.2.3", ("SAM3D.example.org",)) == {"10.1.2.3", "sam3d.example.org"}


def test_an_error_of_the_start_ends_a_server_with_its_reason_and_is_raised_elsewhere(monkeypatch, start) -> None:
    @listen.refuse_on_errors
    def begin() -> None:
        raise Sam3dError("--conf cahce_mb: unknown key")

    with pytest.raises(Sam3dError, match="cahce_mb"):
        begin()
    monkeypatch.setattr(listen, "running_server", lambda: object())
    with pytest.raises(Refused, match=r"^--conf cahce_mb: unknown key$"):
        begin()
