"""The app in this process, with background tasks that do nothing, and a time and memory limit for each request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import schedule
from monailabel.config import settings as server_settings
from monailabel.interfaces.utils import app as app_registry
from starlette.testclient import TestClient

from tests.helpers.app_helpers import APP, write_nifti
from tests.helpers.fuzz_helpers import Probe


@pytest.fixture(scope="package")
def fuzzed_studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzzed")
    for name in ("one", "two"):
        write_nifti(folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")  # a module of another package may come between, which installs an app of its own
def probe(fuzzed_studies: Path, weights_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    from monailabel.app import app

    temporary = tmp_path_factory.mktemp("temporary")
    changed = {
        "MONAI_LABEL_APP_DIR": str(APP),
        "MONAI_LABEL_STUDIES": str(fuzzed_studies),
        "MONAI_LABEL_APP_CONF": {
            "weights": str(weights_path),
            "model_dir": str(tmp_path_factory.mktemp("model")),
            "max_voxels": str(2**24),
            "max_inflated_mb": "128",
            "max_upload_mb": "32",
            "min_free_mb": "0",
        },
        "MONAI_LABEL_SESSION_PATH": str(tmp_path_factory.mktemp("sessions")),
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": False,
        "MONAI_LABEL_AUTO_UPDATE_SCORING": False,
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in changed.items():
            patch.setattr(server_settings, key, value)
        patch.setattr("tempfile.tempdir", str(temporary))
        handlers = dict(app.exception_handlers)
        with TestClient(
            app, base_url="http://127.0.0.1", raise_server_exceptions=False, follow_redirects=False
        ) as client:
            yield Probe(client)
        app.exception_handlers = handlers
        app.middleware_stack = None
    app_registry.clear_cache()
    schedule.clear()
