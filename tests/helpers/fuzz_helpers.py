"""Settings of hypothesis, and what every answer to a fuzzed request has to satisfy."""

from __future__ import annotations

import os
import time
from typing import Any

import httpx
import psutil
from hypothesis import HealthCheck, Phase, settings
from starlette.testclient import TestClient

LONG = int(os.environ.get("FUZZ", "1"))
"""How many times more examples than in the gate; `make fuzz` sets it."""

SLOWEST = 20.0
"""Seconds of processor time that one request may take."""

MOST_MEMORY = 2 * 2**30
"""Bytes by which the process may grow."""


def examples(number: int) -> settings:
    """Settings of hypothesis for a number of examples in the gate, where they are always the same."""
    return settings(
        max_examples=number * LONG,
        derandomize=LONG == 1,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink) if LONG > 1 else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )


class Probe:
    """Sends requests to the app and checks what every answer has to satisfy.

    Attributes:
        client: Of the app.
    """

    def __init__(self, client: TestClient) -> None:
        self.client, self._memory = client, psutil.Process().memory_info().rss

    def check(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request; it must be answered in time, without a 500, and the process must not grow."""
        began = time.process_time()
        answer = self.client.request(method, path, **request)
        taken = time.process_time() - began
        shown = f"{method} {path} {str(request)[:2000]}\n{answer.status_code} {answer.text[:500]}"
        assert answer.status_code in (501, 503, 507) or answer.status_code < 500, shown
        assert taken < SLOWEST, f"{taken:.1f} s: {shown}"
        grown = psutil.Process().memory_info().rss - self._memory
        assert grown < MOST_MEMORY, f"{grown / 2**20:.0f} MiB: {shown}"
        return answer
