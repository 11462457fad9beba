import numpy as np
import pytest

from sam3d_label.phantoms import write_phantoms
from sam3d_label.training import Case, pair_cases


@pytest.fixture(scope="session")
def phantom_cases(tmp_path_factory) -> list[Case]:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 3, seed=5)
    return pair_cases(folder / "images", folder / "labels")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
