"""Fixtures that every test may use: where real volumes and the reference files lie, when they are at hand."""

import itertools
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sam3d_label.image.intensity import Percentile
from sam3d_label.training import TrainingCase
from sam3d_label.weights import Base, Card, Training, Weights
from tests.helpers.networks import SMALL, random_network
from tests.helpers.phantoms import small_phantoms

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Let processes that test side by side, and what they start, share the cores."""
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        threads = max(1, (os.cpu_count() or 1) // int(workers))
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        torch.set_num_threads(threads)


def _folder_or_skip(variable: str, default: Path, what: str) -> Path:
    folder = Path(os.environ.get(variable) or default)
    if not folder.is_dir():
        pytest.skip(f"{what} not found at {folder}; name their folder in ${variable}")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real volumes: $SAM3D_DATA, else ../shared/data beside the repository."""
    return _folder_or_skip("SAM3D_DATA", ROOT.parent / "shared" / "data", "real volumes")


@pytest.fixture(scope="session")
def reference_files() -> Path:
    """The folder of the authors' reference values: $SAM3D_REFERENCE, else ../shared/reference."""
    return _folder_or_skip("SAM3D_REFERENCE", ROOT.parent / "shared" / "reference", "reference files")


@pytest.fixture
def small_weights() -> Weights:
    """Weights of a small network with random values everywhere, that claim to have learned every kind of click."""
    card = Card(
        preset="custom",
        config=SMALL,
        base=Base(name="random"),
        spacing=1.0,
        scales=(0.5, 1.0, 2.0),
        intensity=Percentile(),
        capabilities=["positive_click", "negative_click", "mask", "box"],
        training=Training(),
        licence="Apache-2.0",
        version="random",
        date="2024-01-01",
    )
    return Weights(random_network().eval(), card, card.version, "random")


@pytest.fixture(scope="session")
def phantom_cases(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingCase]:
    """Three small phantoms with their labels, as files."""
    return small_phantoms(tmp_path_factory.mktemp("phantoms"), 3)


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers with seed 0."""
    return np.random.default_rng(0)


WRITES = ("replace", "rename", "fsync", "unlink", "mkdir", "symlink", "link")
"""Calls by which files change; a writer is killed before and after each of them."""


@pytest.fixture
def killed_at_every_write() -> Callable[[Callable[[], object]], Iterator[int]]:
    """Run some work in children that are killed by SIGKILL at their first, second, … write, until one ends.

    After each kill the test body of the loop runs in the parent. Events are counted, so that slow machines see the
    same moments.
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")

    def kills(work: Callable[[], object]) -> Iterator[int]:
        for moment in itertools.count():
            child = os.fork()
            if child == 0:
                _kill_at(moment)
                try:
                    work()
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0, "the work failed; its traceback is on stderr"
                assert moment > 2, "the work made no writes"
                return
            assert os.WTERMSIG(status) == signal.SIGKILL
            yield moment

    return kills


def _kill_at(moment: int) -> None:
    events = itertools.count()

    def event() -> None:
        if next(events) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            event()
            result = call(*args, **kwargs)
            event()
            return result

        return run

    for name in WRITES:
        setattr(os, name, watched(getattr(os, name)))
