"""Cache of masks without a prompt, by volume and weights, and the progress of running searches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from lib.infers.answer import AnswerParams
from sam3d_label.cache import LruCache


@dataclass(frozen=True)
class SearchProgress:
    """Progress of the search in one volume.

    Attributes:
        done: Number of crops processed.
        total: Crops of the volume; 0 before it is open.
    """

    done: int
    total: int


@dataclass(frozen=True)
class _CachedMask:
    bits: np.ndarray
    shape: tuple[int, ...]
    described: AnswerParams

    @property
    def nbytes(self) -> int:
        return int(self.bits.nbytes)


class UnpromptedMasks:
    """Masks by volume and weights, and searches that are running by image.

    Args:
        cache: Where masks are kept, one bit per voxel.
    """

    def __init__(self, cache: LruCache) -> None:
        self._cache = cache
        self._guard = threading.Lock()
        self._running: dict[str, list[SearchProgress]] = {}

    def get(
        self, key: Hashable, find: Callable[[], tuple[np.ndarray, AnswerParams]]
    ) -> tuple[np.ndarray, AnswerParams, bool]:
        """Return the mask of a key, computed once even when several ask for it.

        Args:
            key: The volume, the weights and the device.
            find: Computes the mask, uint8 (I, J, K) of 0 and 1, and its description.

        Returns:
            The mask, its description, and whether it was kept from an earlier request.
        """

        def make() -> _CachedMask:
            mask, described = find()
            return _CachedMask(np.packbits(mask), mask.shape, described)

        kept, made = self._cache.get(("unprompted", key), make)
        bits = np.unpackbits(kept.bits, count=int(np.prod(kept.shape)))
        return bits.reshape(kept.shape), kept.described.copy(), not made

    @contextmanager
    def show_progress(self, image: str) -> Iterator[Callable[[int, int], None]]:
        """Show the progress of a search in an image while the block runs.

        Args:
            image: Id of the image, or name of the session.

        Yields:
            A function to call with the number of crops done, and of all.
        """
        state = [SearchProgress(0, 0)]
        with self._guard:
            self._running[image] = state
        try:
            yield lambda done, total: state.__setitem__(0, SearchProgress(done, total))
        finally:
            with self._guard:
                if self._running.get(image) is state:
                    del self._running[image]

    def progress(self, image: str) -> SearchProgress | None:
        """Return how far the search in an image is; None when none is running."""
        with self._guard:
            state = self._running.get(image)
        return state[0] if state else None
