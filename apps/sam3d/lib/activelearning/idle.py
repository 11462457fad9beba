"""Let background work run only while the server is idle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from sam3d_label.training.busy import BusySign, TrainingSign

POLL_SECONDS = 0.1


class Idleness:
    """Whether nobody needs the machine: no click for a while, and no training.

    Args:
        model_dir: Folder of the flags.
        seconds: Seconds without a click after which the server is idle.
    """

    def __init__(self, model_dir: Path, seconds: float) -> None:
        self._clicks, self._training, self._seconds = BusySign(model_dir), TrainingSign(model_dir), seconds

    def __call__(self) -> bool:
        """Return whether the server is idle."""
        quiet = not self._clicks.seconds_left() and self._clicks.seconds_since() >= self._seconds
        return quiet and not self._training.is_shown()

    def wait(self) -> None:
        """Return when the server is idle."""
        while not self():
            time.sleep(POLL_SECONDS)


@contextmanager
def between_layers(pause: Callable[[], None]) -> Iterator[None]:
    """Call a function before each layer of each network that this thread runs, so that it can pause in between.

    A layer takes a few hundredths of a second on a CPU, a whole volume many seconds.

    Args:
        pause: Returns when the computation may go on.
    """
    this = threading.get_ident()

    def before(module: nn.Module, inputs: object) -> None:
        if threading.get_ident() == this:
            pause()

    handle = register_module_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()
