"""Routes and middleware of the app in MONAI Label's FastAPI object."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.testclient import TestClient

from lib.server import install as installing


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
    installing.install("the app", api)
    client = TestClient(api)
    assert client.post("/train/sam3d").json() == {"from": "the app"}
    assert client.get("/train/").json() == {"from": "upstream"}
    assert "access-control-allow-origin" not in client.get("/train/", headers={"Origin": "http://evil.example"}).headers
