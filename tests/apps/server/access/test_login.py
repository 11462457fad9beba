"""What the login remembers of tokens, used from several threads."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cachetools import TTLCache

from lib.server.access.code_flow import CodeFlows
from lib.server.access.identity import Identity, Role
from lib.server.access.login import Login


class Guarded(TTLCache[Any, Any]):
    """Notes when it is used by a thread that does not hold the lock."""

    def __init__(self, size: int, lock: Any) -> None:
        super().__init__(size, 900)
        self.lock, self.unguarded = lock, 0

    def _check(self) -> None:
        self.unguarded += not self.lock.locked()

    def __contains__(self, key: object) -> bool:
        self._check()
        return super().__contains__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._check()
        super().__setitem__(key, value)

    def pop(self, *arguments: Any) -> Any:
        self._check()
        return super().pop(*arguments)


class Provider:
    """Knows every token."""

    class settings:  # noqa: N801
        client_id = "x"

    def identify(self, token: str) -> Identity:
        return Identity(token, Role.ANNOTATOR)

    def endpoint(self, _: str) -> str:
        return "https://login"

    def ask_for_token(self, _: Any) -> dict[str, Any]:
        return {"access_token": "x"}


def test_tokens_are_remembered_under_a_lock() -> None:
    provider: Any = Provider()
    login = Login(None, provider, 3600)
    login._known = known = Guarded(4, login._known_lock)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: login.from_bearer(f"a.{n % 20}.b", "127.0.0.1"), range(2000)))
    finally:
        sys.setswitchinterval(interval)
    assert len(found) == 2000
    assert known.unguarded == 0


def test_started_logins_are_remembered_under_a_lock() -> None:
    provider: Any = Provider()
    flows = CodeFlows(provider)
    flows._started = started = Guarded(4, flows._lock)
    _, state = flows.start("https://here/callback", "/")
    assert flows.finish(state, "code", "https://here/callback") == ("x", None, "/")
    with pytest.raises(Exception, match="start again"):
        flows.finish(state, "code", "https://here/callback")
    assert started.unguarded == 0
