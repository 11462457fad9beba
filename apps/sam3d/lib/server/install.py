"""Puts the app's routes and middleware into MONAI Label's FastAPI object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.middleware import Middleware

from lib.server.request_log import RequestLog
from lib.server.routes import health, infer

ROUTERS: tuple[Callable[[Any], APIRouter], ...] = (health.router, infer.router)
"""Makers of the app's routers, each of which gets the app."""

MIDDLEWARE: tuple[Callable[[Any], Middleware | None], ...] = (
    lambda app: Middleware(RequestLog, observers=(app.metrics.request,)),
)
"""Makers of the middleware, outermost first; each gets the app, and answers None where it is not needed."""


def install(app: Any, api: FastAPI, prefix: str = "") -> None:
    """Replace MONAI Label's routes and middleware by the app's.

    Starlette builds its stack of middleware when the first message arrives, which is the one that loads the app. The
    stack is dropped here, so that the next message builds it again.

    Args:
        app: The `SAM3DApp`.
        api: MONAI Label's FastAPI object.
        prefix: Path prefix of all routes (`MONAI_LABEL_API_STR`).
    """
    upstream = list(api.router.routes)
    api.router.routes.clear()
    for make_router in ROUTERS:
        api.include_router(make_router(app), prefix=prefix)
    api.router.routes.extend(upstream)  # the first route that matches answers, so ours replace those at the same paths
    made = [make(app) for make in MIDDLEWARE]
    kept = [layer for layer in api.user_middleware if layer.cls is not CORSMiddleware]
    api.user_middleware = [layer for layer in made if layer is not None] + kept
    api.middleware_stack = None
    api.openapi_schema = None
