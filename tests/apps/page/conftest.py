"""A server on the sample data, and the page in a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.app_helpers import serve
from tests.helpers.page import CASE, SAMPLES, Page, open_annotator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder; the images are in `studies`."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(SAMPLES / "images", folder / "studies")
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """A server with the shipped weights and two labels."""
    with serve(["--studies", str(folder / "studies"), "--conf", "labels", "tumor,cyst"], folder) as address:
        yield address


@pytest.fixture
def user(url: str) -> Iterator[Page]:
    """The page with a case open."""
    with open_annotator(url) as page:
        page.open(CASE)
        yield page
