"""A limit on failed logins for each client address."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

MOST_FAILURES = 10
SECONDS = 60.0
"""After `MOST_FAILURES` failed logins within this time an address has to wait."""

MOST_ADDRESSES = 10_000
"""Addresses that are remembered; the one that failed first is forgotten when one more fails."""


class Failures:
    """Failed logins by client address.

    Args:
        clock: Time in seconds, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, address: str) -> None:
        """Count a failed login."""
        with self._lock:
            name = network(address)
            times = self._times.setdefault(name, deque(maxlen=MOST_FAILURES))
            times.append(self._clock())
            self._times.move_to_end(name)
            while len(self._times) > MOST_ADDRESSES:
                self._times.popitem(last=False)

    def wait(self, address: str) -> int:
        """Return for how many seconds an address may not try to log in; 0 if it may."""
        with self._lock:
            times = self._times.get(network(address))
            if times is None or len(times) < MOST_FAILURES:
                return 0
            return max(0, math.ceil(times[0] + SECONDS - self._clock()))


def network(address: str) -> str:
    """Return the address, or its network where a single client usually has a whole one (IPv6)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
