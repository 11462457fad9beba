"""The cases of a run in memory: those used last, under a byte budget; the others are opened again when needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from sam3d_label.cache import LruCache
from sam3d_label.image.intensity import IntensityRule, Normalization
from sam3d_label.image.labels import open_label
from sam3d_label.image.volume import Volume
from sam3d_label.training.dataset import OpenedCase, TrainingCase


@dataclass(frozen=True)
class _Image:
    volume: Volume
    normalization: Normalization

    @property
    def nbytes(self) -> int:
        return self.volume.array.nbytes


@dataclass(frozen=True)
class _Target:
    volume: Volume
    lower: np.ndarray
    upper: np.ndarray
    ignored: Volume | None

    @property
    def nbytes(self) -> int:
        return self.volume.array.nbytes * (1 if self.ignored is None else 2)


class OpenedCases(Sequence[OpenedCase]):
    """Cases that are opened on access; cases of one image share it.

    Args:
        cases: The cases.
        intensity: The intensity rule.
        max_bytes: Budget for images and targets; the least recently used go first. The one accessed last is in memory
            whatever its size.
    """

    def __init__(self, cases: Sequence[TrainingCase], intensity: IntensityRule, max_bytes: int) -> None:
        self.cases, self.intensity = list(cases), intensity
        self._kept = LruCache(max_bytes)

    def __len__(self) -> int:
        return len(self.cases)

    @overload
    def __getitem__(self, index: int) -> OpenedCase: ...

    @overload
    def __getitem__(self, index: slice) -> list[OpenedCase]: ...

    def __getitem__(self, index: int | slice) -> OpenedCase | list[OpenedCase]:
        """Return a case, or some of them at once; errors as in `OpenedCase.open`."""
        if isinstance(index, slice):
            return [self[at] for at in range(len(self))[index]]
        case = self.cases[index]
        image, _ = self._kept.get(case.image, lambda: self._image(case.image))
        target, _ = self._kept.get(case, lambda: self._target(case, image))
        return OpenedCase(
            case.name,
            image.volume,
            image.normalization,
            target.volume,
            target.lower,
            target.upper,
            case.salient,
            target.ignored,
            case.rehearsed,
        )

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._kept.nbytes

    def _image(self, path: Path) -> _Image:
        volume = Volume.open(path)
        volume.require_plausible_size()
        return _Image(volume, self.intensity.fit(volume.array, volume.modality))

    def _target(self, case: TrainingCase, image: _Image) -> _Target:
        opened = OpenedCase.of(case, image.volume, open_label(case.label), image.normalization)
        return _Target(opened.target, opened.lower, opened.upper, opened.ignored)

    def __getstate__(self) -> dict[str, object]:
        """Return the state without the opened cases: a process that is not forked opens them again."""
        return {"cases": self.cases, "intensity": self.intensity, "max_bytes": self._kept.max_bytes}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # opens the cases anew
