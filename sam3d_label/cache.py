"""Least-recently-used embeddings, and masks of single clicks, under a byte budget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from cachetools import LRUCache

DEFAULT_BYTES = 2 * 1024**3


class Sized(Protocol):
    """An object that can be cached: an embedding or a tensor."""

    @property
    def nbytes(self) -> int:
        """Memory held, bytes."""


Kept = TypeVar("Kept", bound=Sized)


class EmbeddingCache:
    """Embeddings of crops, shared by threads; each is computed once, even if two threads request it at the same time.

    Args:
        max_bytes: Budget; the least recently used embeddings go first. An embedding that exceeds it is not kept.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative, not {max_bytes}")
        self.max_bytes = max_bytes
        self._kept: LRUCache[Hashable, Any] = LRUCache(max_bytes, getsizeof=attrgetter("nbytes"))
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
        """Return the embedding of a key, and whether it had to be computed."""
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
                embedding = make()
                self._keep(key, embedding)
            finally:
                with self._lock:
                    self._making.pop(key, None)
            return embedding, True

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._kept.clear()

    def _keep(self, key: Hashable, embedding: Sized) -> None:
        if embedding.nbytes > self.max_bytes:
            return
        with self._lock:
            self._kept[key] = embedding
