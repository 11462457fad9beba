"""A DICOMweb server that answers in odd ways, or slowly."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib.datastores import dicom_client
from lib.datastores.dicom_client import DicomWeb, Series
from lib.datastores.dicomweb import DicomWebDatastore
from lib.errors import RemoteError

SOON = 10.0


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    """A server that answers every request in the same way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/dicom-web"
    server.shutdown()
    server.server_close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once something has happened in another thread."""
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(("status", "shown"), [(500, "500 Internal Server Error$"), (520, "520$"), (599, "599$")])
def test_any_status_is_reported(status: int, shown: str) -> None:
    with answering(status) as url, pytest.raises(RemoteError, match=f"answered {shown}") as caught:
        DicomWeb(url).series("CT")
    assert caught.value.status == 502


def test_a_value_that_dicom_does_not_allow_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    listed = [
        {"0020000E": {"vr": "UI", "Value": [uid]}, "0020000D": {"vr": "UI", "Value": ["1.2"]}}
        for uid in ("1.2.3\x7f", "1.2.4")
    ]
    with warnings.catch_warnings(record=True) as shown, answering(200, json.dumps(listed).encode()) as url:
        warnings.simplefilter("always")
        found = DicomWeb(url).series("CT")
    assert [one.uid for one in found] == ["1.2.4"]
    assert not [one for one in shown if "1.2.3" in str(one.message)]
    assert "1.2.3" not in "".join(capfd.readouterr())


class SlowServer:
    """Lists one series; every call waits until it is let go."""

    url = "http://pacs/dicom-web"

    def __init__(self) -> None:
        self.calls, self.release = 0, threading.Event()

    def series(self, modality: str, _: Any = None) -> list[Series]:
        self.calls += 1
        assert self.release.wait(SOON)
        return [Series("1.2.3", "1.2", "CT", 1, {})] if modality == "CT" else []


@pytest.fixture
def slow(tmp_path: Path) -> tuple[SlowServer, DicomWebDatastore]:
    server: Any = SlowServer()
    return server, DicomWebDatastore(server, tmp_path, refresh=0)


def test_requests_go_on_with_what_is_known_while_one_asks_the_server(
    slow: tuple[SlowServer, DicomWebDatastore],
) -> None:
    server, store = slow
    server.release.set()
    assert store.list_images() == ["1.2.3"]
    server.release.clear()
    calls = server.calls
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(store.list_images)
        wait_for(lambda: server.calls > calls)
        start = time.monotonic()
        assert all(store.list_images() == ["1.2.3"] for _ in range(20))
        assert store.status()["total"] == 1
        assert time.monotonic() - start < 1
        server.release.set()
        assert asking.result() == ["1.2.3"]


def test_an_answer_older_than_a_label_that_was_stored_meanwhile_is_not_used(
    slow: tuple[SlowServer, DicomWebDatastore], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, store = slow
    taken: list[Any] = []
    monkeypatch.setattr(store, "_take_over", taken.append)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(store.synchronise)
        wait_for(lambda: server.calls == 1)
        store._stored += 1
        server.release.set()
        asking.result()
        assert not taken
        store.synchronise()
    assert len(taken) == 1


def test_few_downloads_go_on_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, release, started = DicomWeb("http://127.0.0.1:9/dicom-web"), threading.Event(), []

    def wait(*_: Any) -> Iterator[Any]:
        started.append(1)
        assert release.wait(SOON)
        yield from ()

    monkeypatch.setattr(server, "_client", SimpleNamespace(iter_series=wait))
    with ThreadPoolExecutor(dicom_client.MOST_DOWNLOADS) as pool:
        running = [pool.submit(server.download, "1", "2", tmp_path) for _ in range(dicom_client.MOST_DOWNLOADS)]
        wait_for(lambda: len(started) == dicom_client.MOST_DOWNLOADS)
        with pytest.raises(RemoteError, match="try again") as caught:
            server.download("1", "2", tmp_path)
        assert caught.value.status == 503
        release.set()
        assert [task.result() for task in running] == [0] * dicom_client.MOST_DOWNLOADS
    assert server.download("1", "2", tmp_path) == 0
