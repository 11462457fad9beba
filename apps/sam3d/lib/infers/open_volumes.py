"""Cache of recently opened volumes, so that the next click on one does not read it again."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sam3d_label import Segmenter
from sam3d_label.cache import LruCache
from sam3d_label.image.volume import Volume
from sam3d_label.weights import Weights

OPEN_VOLUMES_BYTES = 2**30


def file_key(path: str | os.PathLike[str]) -> Hashable:
    """Return values that change with a file or a folder's files: real path, modification time (ns) and size."""
    real = Path(path).resolve()
    files = sorted(real.iterdir()) if real.is_dir() else [real]
    stats = [file.stat() for file in files]
    return (
        str(real),
        max((stat.st_mtime_ns for stat in stats), default=0),
        sum(stat.st_size for stat in stats),
    )


@dataclass
class _OpenVolume:
    lock: threading.Lock = field(default_factory=threading.Lock)
    segmenter: Segmenter | None = None

    @property
    def nbytes(self) -> int:
        return self.segmenter.volume.array.nbytes if self.segmenter else 0


class OpenVolumes:
    """Cache of segmenters by volume; the least recently used go first.

    Requests for the same volume wait for each other.
    Our own instead of `cachetools`: an entry and its lock are there before its size is known.

    Args:
        max_bytes: Budget for the voxels; the volume used last stays whatever its size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._guard = threading.Lock()
        self._entries: OrderedDict[Hashable, _OpenVolume] = OrderedDict()

    @contextmanager
    def borrow(
        self,
        key: Hashable,
        open_it: Callable[[], Segmenter],
        renew: Callable[[Segmenter], Segmenter] = lambda segmenter: segmenter,
    ) -> Iterator[Segmenter]:
        """Lend the segmenter of a volume to one request.

        Args:
            key: Key of the volume and the device.
            open_it: Opens it when it is not there yet; its errors pass through and nothing is kept.
            renew: Returns the segmenter that replaces an earlier one, or the same.
        """
        with self._guard:
            entry = self._entries.setdefault(key, _OpenVolume())
            self._entries.move_to_end(key)
        with entry.lock:
            if entry.segmenter is None:
                entry.segmenter = self._open(key, open_it)
            entry.segmenter = renew(entry.segmenter)
            with self._guard:
                self._trim()
            yield entry.segmenter

    def opened(self, key: Hashable) -> Segmenter | None:
        """Return the segmenter of a volume without waiting for requests that use it; None when it is not open."""
        with self._guard:
            entry = self._entries.get(key)
        return entry.segmenter if entry else None

    def _open(self, key: Hashable, open_it: Callable[[], Segmenter]) -> Segmenter:
        try:
            return open_it()
        except BaseException:
            with self._guard:
                self._entries.pop(key, None)
            raise

    def _trim(self) -> None:
        while len(self._entries) > 1 and sum(entry.nbytes for entry in self._entries.values()) > self._max_bytes:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


class Segmenters:
    """Segmenters by image and device, with a shared cache.

    Args:
        weights: The active weights on each device.
        cache_bytes: Budget of the embedding cache.
    """

    def __init__(self, weights: Callable[[str], Weights], cache_bytes: int) -> None:
        self.weights = weights
        self.cache = LruCache(cache_bytes)
        self._volumes = OpenVolumes(OPEN_VOLUMES_BYTES)

    def open(self, path: str, device: str) -> Segmenter:
        """Open a file or DICOM folder for work that pauses during requests: no request waits for it."""
        return Segmenter(Volume.open(path), self.weights(device), cache=LruCache(self.cache.max_bytes))

    def view(self, path: str, device: str) -> Segmenter:
        """Return the segmenter of a file or DICOM folder to read its volume, without waiting for a click on it."""
        weights = self.weights(device)
        found = self._volumes.opened((file_key(path), device))
        if found is not None:
            return self._renewed(found, weights)
        with self.borrow(path, device) as segmenter:
            return segmenter

    def borrow(self, path: str, device: str) -> AbstractContextManager[Segmenter]:
        """Lend the segmenter of a file or DICOM folder on a device to one request, with the active weights."""
        weights = self.weights(device)

        def open_it() -> Segmenter:
            return Segmenter(Volume.open(path), weights, cache=self.cache)

        key = (file_key(path), device)
        return self._volumes.borrow(key, open_it, lambda segmenter: self._renewed(segmenter, weights))

    def _renewed(self, segmenter: Segmenter, weights: Weights) -> Segmenter:
        same = segmenter.weights.signature == weights.signature
        return segmenter if same else Segmenter(segmenter.volume, weights, cache=self.cache)
