from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a script of benchmarks/ by its name, as it is when it runs from there."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module
