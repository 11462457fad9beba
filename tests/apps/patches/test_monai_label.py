"""Routes and middleware of the app in MONAI Label's FastAPI object."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from lib.patches import monai_label as installing


def test_a_router_of_the_app_answers_instead_of_the_upstream_route_of_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = APIRouter(prefix="/train")
    upstream.add_api_route("/{model}", lambda model: {"from": "upstream"}, methods=["POST"])
    upstream.add_api_route("/", lambda: {"from": "upstream"}, methods=["GET"])
    api = FastAPI()
    api.add_middleware(CORSMiddleware, allow_origins=["*"])
    api.include_router(upstream)

    def ours(app: str) -> APIRouter:
        router = APIRouter(prefix="/train")
        router.add_api_route("/{model}", lambda model: {"from": app}, methods=["POST"])
        return router

    monkeypatch.setattr(installing, "ROUTERS", (ours,))
    monkeypatch.setattr(installing, "OWN_ROUTERS", ())
    monkeypatch.setattr(installing, "MIDDLEWARE", ())
    app: Any = "the app"
    installing.install(app, api)
    client = TestClient(api)
    assert client.post("/train/sam3d").json() == {"from": "the app"}
    assert client.get("/train/").json() == {"from": "upstream"}
    assert "access-control-allow-origin" not in client.get("/train/", headers={"Origin": "http://evil.example"}).headers


def test_a_later_app_takes_the_place_of_the_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FastAPI()
    api.add_api_route("/logs/", lambda: [])
    passed: list[str] = []

    class Passing:
        def __init__(self, app: Any, name: str) -> None:
            self.app, self.name = app, name

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            passed.append(self.name)
            await self.app(scope, receive, send)

    def ours(app: str) -> APIRouter:
        router = APIRouter()
        router.add_api_route(f"/{app}", lambda: app)
        return router

    monkeypatch.setattr(installing, "ROUTERS", (ours,))
    monkeypatch.setattr(installing, "OWN_ROUTERS", ())
    monkeypatch.setattr(installing, "MIDDLEWARE", (lambda app: Middleware(Passing, name=app),))
    apps: list[Any] = ["first", "second"]
    for app in apps:
        installing.install(app, api)
    client = TestClient(api)
    assert client.get("/second").json() == "second"
    assert passed == ["second"]
    assert client.get("/first").status_code == 404
    assert client.get("/logs/").status_code == 200
