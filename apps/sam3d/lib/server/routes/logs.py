"""The server's log and the state of its GPUs, as plain text for an admin."""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import PlainTextResponse
from monailabel.config import settings

MOST_LINES = 100_000
GPU_SECONDS = 20


def router(_: object) -> APIRouter:
    """Return the routes, at the paths of MONAI Label's endpoints/logs.py.

    Its page loads scripts from other servers. The parameters of that page are accepted and ignored.
    """
    routes = APIRouter(prefix="/logs", tags=["Others"], default_response_class=PlainTextResponse)

    @routes.get("/", summary="The last lines of the server's log")
    def log(lines: Annotated[int, Query(ge=0, le=MOST_LINES)] = 300) -> str:
        path = Path(settings.MONAI_LABEL_APP_DIR, "logs", "app.log")
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                return "".join(deque(file, lines or MOST_LINES))
        except OSError:
            raise HTTPException(404, "There is no log file; the server was started with another --log_config") from None

    @routes.get("/gpu", summary="The state of the GPUs (nvidia-smi)")
    def gpus() -> str:
        program = shutil.which("nvidia-smi")
        if program is None:
            raise HTTPException(404, "There is no nvidia-smi on this server: it has no GPU of NVIDIA")
        try:
            result = subprocess.run([program], capture_output=True, text=True, timeout=GPU_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise HTTPException(503, f"nvidia-smi does not answer ({type(error).__name__})") from None
        return result.stdout

    return routes
