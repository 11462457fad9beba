"""OHIF in a browser, on a server under a path prefix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.helpers.ohif import METASTASIS, open_study, serve_archive
from tests.helpers.orthanc import orthanc

pytestmark = pytest.mark.slow

PREFIX = "/one/two"


@pytest.fixture(scope="module")
def slices(real_data: Path) -> list[Path]:
    return sorted((real_data / "dicom" / "CRLM-CT-1004").iterdir())


@pytest.fixture(scope="module")
def server(slices: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prefix")
    with pytest.MonkeyPatch.context() as patch, orthanc(folder / "orthanc") as archive:
        archive.store(slices)
        patch.setenv("MONAI_LABEL_API_STR", PREFIX)
        with serve_archive(archive, folder, labels="tumor,cyst") as url:
            yield f"{url}{PREFIX}"


def test_a_click_is_segmented_saved_and_painted_again_under_a_prefix(server: str, slices: list[Path]) -> None:
    asked: list[str] = []
    with open_study(server, slices) as viewer:
        viewer.page.on("request", lambda request: asked.append(request.url))
        viewer.open_points()
        viewer.segment(METASTASIS)
        mask = viewer.mask()
        assert mask[METASTASIS] == 1
        viewer.save_label()
    with open_study(server, slices) as viewer:
        viewer.wait_for_saved_label()
        np.testing.assert_array_equal(viewer.mask(), mask)
    assert asked
    assert all(url.startswith((server, "blob:", "data:")) for url in asked)
    assert httpx.get(f"{server}/info/").json()["datastore"]["completed"] == 1
