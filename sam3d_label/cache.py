"""One cache for embeddings, masks and training volumes: least recently used, under a byte budget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from cachetools import LRUCache

DEFAULT_BYTES = 2 * 1024**3


class Sized(Protocol):
    """An object that can be cached, such as an embedding or a tensor."""

    @property
    def nbytes(self) -> int:
        """Memory held, bytes."""


Kept = TypeVar("Kept", bound=Sized)


class LruCache:
    """Values by key, shared by threads; each is computed once, even if two threads request it at the same time.

    Args:
        max_bytes: Budget; the least recently used values are removed first. A value that exceeds it is not kept.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative, not {max_bytes}")
        self.max_bytes = max_bytes
        self._kept: LRUCache[Hashable, Any] = LRUCache(max_bytes, getsizeof=attrgetter("nbytes"))  # of several types
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        with self._lock:
            return int(self._kept.currsize)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], Kept]) -> tuple[Kept, bool]:
        """Return the value of a key, and whether it had to be computed.

        Args:
            key: The key.
            make: Computes the value if it is not in the cache.
        """
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                return kept, False
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                kept = self._kept.get(key)
            if kept is not None:
                return kept, False
            try:
                value = make()
                self._keep(key, value)
            finally:
                with self._lock:
                    self._making.pop(key, None)
            return value, True

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._kept.clear()

    def _keep(self, key: Hashable, value: Sized) -> None:
        if value.nbytes > self.max_bytes:
            return
        with self._lock:
            self._kept[key] = value
