"""Masks under load: several annotators at a time get what each of them would get alone, to the last bit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
import schedule
from monailabel.config import settings
from monailabel.interfaces.utils import app as app_registry
from starlette.testclient import TestClient

from tests.helpers.app_helpers import APP

pytestmark = pytest.mark.slow
USERS, VOLUMES = 4, 5


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """The benchmark, as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(APP.parents[1] / "benchmarks")
        yield import_module("load")


@pytest.fixture
def run(tmp_path: Path, weights_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Any]]:
    """Runs a job on a server that was just started."""
    studies = tmp_path / "studies"
    studies.mkdir()
    changed = {
        "MONAI_LABEL_APP_DIR": str(APP),
        "MONAI_LABEL_STUDIES": str(studies),
        "MONAI_LABEL_APP_CONF": {"weights": str(weights_path), "model_dir": str(tmp_path / "model"), "cache_mb": "64"},
        "MONAI_LABEL_SESSION_PATH": str(tmp_path / "sessions"),
        "MONAI_LABEL_AUTO_UPDATE_SCORING": False,
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": False,
    }
    for key, value in changed.items():
        monkeypatch.setattr(settings, key, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    from monailabel.app import app

    handlers, routes = dict(app.exception_handlers), list(app.router.routes)

    def run(job: Any) -> Any:
        async def connected() -> Any:
            transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                return await job(client)

        with TestClient(app):
            return asyncio.run(connected())

    yield run
    app_registry.clear_cache()
    schedule.clear()
    app.exception_handlers, app.router.routes[:] = handlers, routes
    app.middleware_stack = None


def test_masks_of_several_annotators_at_a_time_equal_those_of_one(
    load: Any, run: Callable[[Any], Any], tmp_path: Path
) -> None:
    cases = load.write_cases(tmp_path / "studies", [f"v{n}" for n in range(VOLUMES)], (24, 20, 16))
    together = run(lambda client: load.work(client, cases, USERS))
    app_registry.app_instance().segmenters.cache.clear()
    alone = run(lambda client: load.masks_of_one_user(client, cases))
    assert not together.errors
    assert not alone.errors
    assert len(together.masks) == 2 * VOLUMES
    assert load.different(together, alone) == []
    assert not list(tmp_path.glob("sam3d-results-*/*"))
    assert together.summary()["submit"]["requests"] == VOLUMES
