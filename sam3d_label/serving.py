"""Start a server in a separate process, wait until it answers, and end it together with its child processes."""

from __future__ import annotations

import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import psutil

from sam3d_label.errors import Sam3dError

HOST = "127.0.0.1"
MONAI_LABEL = (sys.executable, "-m", "monailabel.main")
START_SECONDS = 300
STOP_SECONDS = 30
_LOG_LINES = 25


class ServerStartError(Sam3dError):
    """A server ended or did not answer; the message ends with the last lines of its log."""


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
        """Return its child processes, such as a training."""
        return list(self.process.children(recursive=True))


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def start_server(
    app: Path, port: int, *options: str, host: str = HOST, program: Sequence[str] = MONAI_LABEL
) -> list[str]:
    """Return the command that serves an app of MONAI Label."""
    return [*program, "start_server", "--app", str(app), "--host", host, "--port", str(port), *options]


@contextmanager
def serving(
    command: Sequence[str],
    url: str,
    log: Path,
    *,
    ready: str = "/info/",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float = START_SECONDS,
) -> Iterator[Server]:
    """Run a server until the block ends.

    Args:
        command: The command that starts it.
        url: Its address.
        log: File that its output is added to.
        ready: Path that answers once it is ready; a request for a login counts as an answer.
        folder: Its working folder.
        environment: Its environment variables; without them, those of this process.
        seconds: Time within which it must answer, s.

    Raises:
        ServerStartError: It ended, answered with an error or did not answer in time.
    """
    with log.open("ab") as output:
        process = psutil.Popen(
            list(command), cwd=folder, env=dict(environment or os.environ), stdout=output, stderr=output
        )
    server = Server(url, process)
    try:
        _wait_for(server, ready, log, seconds)
        yield server
    finally:
        _stop(server)


def _wait_for(server: Server, ready: str, log: Path, seconds: float) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline, problem = time.monotonic() + seconds, f"no answer at {server.url} after {seconds:g} s"
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            problem = "the server ended"
            break
        try:
            direct.open(server.url + ready, timeout=20).close()
            return
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.UNAUTHORIZED:
                return
            problem = f"{server.url}{ready} answers {error.code}"
            break
        except OSError:
            time.sleep(0.1)
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    raise ServerStartError("\n".join([f"{problem}; its log, {log}, ends with:", *lines]))


def _stop(server: Server) -> None:
    """End a server, and wait for its child processes, which may write until they end."""
    try:
        started = server.children()
        server.process.terminate()
    except psutil.NoSuchProcess:
        started = []
    try:
        server.process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired:
        server.process.kill()
        server.process.wait()
    psutil.wait_procs(started, STOP_SECONDS)
