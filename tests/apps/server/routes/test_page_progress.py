"""`GET /sam3d/progress`: how far a model is with an image, for viewers that wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from lib.infers.unprompted import SearchProgress
from lib.server.routes import page


@pytest.fixture
def client() -> TestClient:
    known = {"ct": SearchProgress(3, 8), "session-1": SearchProgress(0, 0)}
    app: Any = SimpleNamespace(models=lambda: {"sam3d_auto": SimpleNamespace(progress=known.get)})
    api = FastAPI()
    api.include_router(page.router(app))
    return TestClient(api)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"image": "ct"}, {"running": True, "done": 3, "total": 8}),
        ({"session_id": "session-1"}, {"running": True, "done": 0, "total": 0}),
        ({"image": "mr"}, {"running": False}),
    ],
)
def test_a_model_says_how_far_it_is_with_an_image(
    client: TestClient, asked: dict[str, str], expected: dict[str, Any]
) -> None:
    assert client.get("/sam3d/progress", params={"model": "sam3d_auto", **asked}).json() == expected


def test_an_unknown_model_is_404(client: TestClient) -> None:
    answer = client.get("/sam3d/progress", params={"model": "other", "image": "ct"})
    assert (answer.status_code, "offers: sam3d_auto" in answer.json()["detail"]) == (404, True)
