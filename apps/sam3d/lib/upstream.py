"""What MONAI Label 0.8.5 gets wrong, mended in one place; each piece names what it mends and can go when that does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from monailabel.utils.async_tasks.task import AsyncTask

SOURCE = "https://github.com/Project-MONAI/MONAILabel/blob/0.8.5/monailabel"
"""Where the files lie that are named below."""

OHIF_CONFIG = "app-config.js"


def allow_background_tasks_without_pythonpath() -> None:
    """Background tasks read $PYTHONPATH unguarded (utils/async_tasks/utils.py) and would end without a word."""
    os.environ.setdefault("PYTHONPATH", "")


def check_before_starting(endpoint: ModuleType, check: Callable[[Mapping[str, Any]], object]) -> None:
    """What takes long is started in another process whatever the request holds (utils/async_tasks/task.py).

    A mistake would be found there, by nobody. It is refused before that.

    Args:
        endpoint: The module whose routes start it.
        check: Raises for a request that would fail.
    """

    class CheckedTask(AsyncTask):
        @staticmethod
        def run(
            method: str, request: Any = None, params: Any = None, force_sync: bool = False, enqueue: bool = False
        ) -> Any:
            check({**(request or {}), **(params or {})})
            return AsyncTask.run(method, request, params, force_sync, enqueue)

    endpoint.AsyncTask = CheckedTask  # type: ignore[attr-defined]


def tell_what_was_stopped(endpoint: ModuleType) -> None:
    """A training that is stopped before it wrote a line answers with no line (utils/async_tasks/utils.py).

    Slicer shows the last one, and fails where there is none (plugins/slicer/MONAILabel, onStopTraining).

    Args:
        endpoint: The module whose routes stop it.
    """

    class TalkingTask(endpoint.AsyncTask):  # type: ignore[name-defined]
        @staticmethod
        def stop(method: str) -> Any:
            task = AsyncTask.stop(method)
            return task and {**task, "details": list(task.get("details") or ["stopped before it began"])}

    endpoint.AsyncTask = TalkingTask  # type: ignore[attr-defined]
