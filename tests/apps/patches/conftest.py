"""A PACS with the `slices` of a test file, and the app on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.ohif import serve_archive
from tests.helpers.orthanc import Orthanc, orthanc


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ohif")


@pytest.fixture(scope="module")
def archive(slices: list[Path], folder: Path) -> Iterator[Orthanc]:
    with orthanc(folder / "orthanc") as server:
        server.store(slices)
        yield server


@pytest.fixture(scope="module")
def server(archive: Orthanc, folder: Path) -> Iterator[str]:
    with serve_archive(archive, folder, labels="tumor,cyst") as url:
        yield url
