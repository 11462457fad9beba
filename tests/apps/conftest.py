"""The app's folder on the path, as MONAI Label puts it there, and files that several tests use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "apps" / "sam3d"), str(HERE)]


@pytest.fixture(scope="session")
def weights_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that claim to have learned every prompt, and to do without."""
    from app_helpers import write_weights

    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def untrained_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that have learned nothing."""
    from app_helpers import write_weights

    return write_weights(tmp_path_factory.mktemp("untrained"), capabilities=())


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two good volumes and one of each broken kind."""
    from app_helpers import ball, write_broken_volumes, write_nifti

    folder = tmp_path_factory.mktemp("studies")
    write_nifti(folder / "mr.nii.gz")
    write_nifti(folder / "odd.nii.gz", ball((17, 19, 13)))
    write_broken_volumes(folder)
    return folder
