"""Files that several tests of the app use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.app_helpers import ball, write_broken_volumes, write_nifti, write_weights


@pytest.fixture(scope="session")
def weights_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that claim to have learned every prompt, and to do without."""
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def untrained_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that have learned nothing."""
    return write_weights(tmp_path_factory.mktemp("untrained"), capabilities=())


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two good volumes and one of each broken kind."""
    folder = tmp_path_factory.mktemp("studies")
    write_nifti(folder / "mr.nii.gz")
    write_nifti(folder / "odd.nii.gz", ball((17, 19, 13)))
    write_broken_volumes(folder)
    return folder
