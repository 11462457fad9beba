import numpy as np
import pytest

from sam3d_label.training import Case
from tests.helpers.phantoms import small_phantoms


@pytest.fixture(scope="session")
def phantom_cases(tmp_path_factory) -> list[Case]:
    return small_phantoms(tmp_path_factory.mktemp("phantoms"), 3)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
