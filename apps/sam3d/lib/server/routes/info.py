"""`/info/`: what the app offers, which every client asks first."""

from __future__ import annotations

from fastapi import APIRouter

from lib.server.routes.app_protocol import App


def router(app: App) -> APIRouter:
    """Return the route `/info/`.

    Args:
        app: The app to describe.
    """
    routes = APIRouter(prefix="/info", tags=["App"])

    @routes.get("/", summary="Models, trainers, strategies and the state of the datastore")
    def info() -> dict[str, object]:
        return app.info()

    return routes
