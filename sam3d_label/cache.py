"""Least-recently-used embeddings, and masks of single clicks, under a byte budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

DEFAULT_BYTES = 2 * 1024**3


class Sized(Protocol):
    """What can be kept: an embedding, a tensor."""

    @property
    def nbytes(self) -> int:
        """Memory held, bytes."""


Kept = TypeVar("Kept", bound=Sized)


class EmbeddingCache:
    """Embeddings of crops, shared by threads; a key that is kept is made once, even when two ask for it at once.

    Args:
        max_bytes: Budget; the least recently used embeddings go first. One that alone exceeds it is not kept.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative, not {max_bytes}")
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        with self._lock:
            return sum(embedding.nbytes for embedding in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], Kept]) -> tuple[Kept, bool]:
        """The embedding of a key, and whether it had to be made."""
        with self._lock:
            kept = self._used(key)
            if kept is not None:
                return kept, False
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                kept = self._used(key)
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
        """Forget everything."""
        with self._lock:
            self._kept.clear()

    def _used(self, key: Hashable) -> Any:
        """The embedding of a key, now the one used last; the caller holds the lock."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def _keep(self, key: Hashable, embedding: Sized) -> None:
        if embedding.nbytes > self.max_bytes:
            return
        with self._lock:
            self._kept[key] = embedding
            held = sum(kept.nbytes for kept in self._kept.values())
            while held > self.max_bytes:
                _, dropped = self._kept.popitem(last=False)
                held -= dropped.nbytes
