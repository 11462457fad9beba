"""Background processes (`lib.server.tasks`): they have a lower priority than the server, and end with it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)
SERVER = "SAM3D_SERVER"
"""Environment variable with the process id of the server, for its background processes."""

BACKGROUND_MAIN = "background_main.py"
"""The script in `lib/server` that such a process runs."""

POLL_SECONDS = 1.0


def is_background() -> bool:
    """Return whether this is a background process, and not the server."""
    return Path(getattr(sys.modules["__main__"], "__file__", None) or "").name == BACKGROUND_MAIN


def end_with_server() -> None:
    """In a background process: exit soon after the server has ended. In the server: record its process id.

    Work that continues without the server could not be stopped or seen, and the next server would start it again.
    """
    if not is_background():
        os.environ[SERVER] = str(os.getpid())
    elif SERVER in os.environ:
        threading.Thread(target=_end_with, args=(int(os.environ[SERVER]),), daemon=True).start()


def _end_with(server: int) -> None:
    while os.getppid() == server and psutil.pid_exists(server):
        time.sleep(POLL_SECONDS)
    logger.warning("The server has ended, so this process ends; a training continues when it is started again")
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)
