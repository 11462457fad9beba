"""Start the app as users do, on a free port of this machine, for the benchmarks that measure a running server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 300
STOP_SECONDS = 30


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        url: Its address.
        process: Its process.
    """

    url: str
    process: psutil.Popen

    def children(self) -> list[psutil.Process]:
        """Return the child processes of the server, such as a training."""
        return list(self.process.children(recursive=True))


@contextmanager
def server(studies: Path) -> Iterator[Server]:
    """Serve a folder of volumes, with the model folder in it, until the block ends.

    Raises:
        RuntimeError: The server ended, or did not answer within `START_SECONDS`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(ROOT / "apps" / "sam3d")]
    options = ["--studies", str(studies), "--host", "127.0.0.1", "--port", str(port)]
    options += ["--conf", "model_dir", str(studies / ".model")]
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen([*start, *options], cwd=ROOT, env=os.environ, stdout=log, stderr=log)
        started = Server(f"http://127.0.0.1:{port}", process)
        try:
            _wait_for(started)
            yield started
        finally:
            _stop(started)


def _wait_for(started: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and started.process.poll() is None:
        try:
            if httpx.get(f"{started.url}/info/", timeout=10).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not answer at {started.url}")


def _stop(started: Server) -> None:
    """End the server, and wait for the processes it has started: they write into the studies until then."""
    try:
        begun = started.children()
        started.process.terminate()
    except psutil.NoSuchProcess:
        begun = []
    try:
        started.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        started.process.kill()
        started.process.wait()
    psutil.wait_procs(begun, STOP_SECONDS)
