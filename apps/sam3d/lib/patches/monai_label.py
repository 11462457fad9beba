"""Puts the app's routes and middleware into MONAI Label's FastAPI object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from fastapi import APIRouter, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import iter_route_contexts
from monailabel.config import settings
from monailabel.endpoints.user.auth import User, get_current_user
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from lib.patches import ohif
from lib.server.access.roles import is_listed
from lib.server.body import body_limit
from lib.server.middleware.access import Access
from lib.server.middleware.headers import SecurityHeaders
from lib.server.middleware.same_origin import SameOrigin
from lib.server.request_log import RequestLog
from lib.server.routes import (
    active_learning,
    batch,
    datastore,
    health,
    infer,
    info,
    login,
    logs,
    model,
    proxy,
    scoring,
    segmentation,
    sessions,
    start,
    train,
)
from lib.server.routes.app_protocol import App
from lib.validation import install_validation_errors


class InstalledApp(App, infer.InferApp, login.LoginApp, sessions.SessionsApp, health.HealthApp, Protocol):
    """The parts of `SAM3DApp` behind routes and middleware."""

    hosts: set[str]


ROUTERS: tuple[Callable[[InstalledApp], APIRouter], ...] = (
    infer.router,
    login.router,
    logs.router,
    ohif.router,
    proxy.router,
    sessions.router,
    info.router,
    model.router,
    batch.router,
    train.router,
    active_learning.router,
    scoring.router,
    datastore.router,
    segmentation.router,
)
"""Makers of the routers that replace MONAI Label's; each gets the app. They get the path prefix of MONAI Label's."""

OWN_ROUTERS: tuple[Callable[[InstalledApp], APIRouter], ...] = (start.router, login.pages, health.router)
"""Makers of the routers of the app's own paths."""

MIDDLEWARE: tuple[Callable[[InstalledApp], Middleware | None], ...] = (
    lambda app: Middleware(RequestLog, observers=(app.metrics.request,)),
    lambda app: Middleware(SameOrigin, hosts=app.hosts),
    lambda app: Middleware(Access, login=app.login, prefix=settings.MONAI_LABEL_API_STR),
    body_limit,
)
"""Makers of the middleware, outermost first; each gets the app, and answers None where it is not needed."""


UPSTREAM = "monailabel_upstream"
"""State of the FastAPI object that keeps the routes and middleware of MONAI Label."""


def install(app: InstalledApp, api: FastAPI, prefix: str = "") -> None:
    """Replace MONAI Label's routes and middleware by the app's.

    Starlette builds its stack of middleware when the first message arrives, which is the one that loads the app. The
    stack is dropped here, so that the next message builds it again. An app that is installed later takes the place of
    the earlier one.

    Args:
        app: The `SAM3DApp`.
        api: MONAI Label's FastAPI object.
        prefix: Path prefix of all routes (`MONAI_LABEL_API_STR`).
    """
    if not hasattr(api.state, UPSTREAM):
        setattr(api.state, UPSTREAM, (list(api.router.routes), list(api.user_middleware)))
    upstream, layers = getattr(api.state, UPSTREAM)
    api.router.routes.clear()
    for make_router in ROUTERS:
        api.include_router(make_router(app), prefix=prefix)
    for make_router in OWN_ROUTERS:
        api.include_router(make_router(app), prefix=prefix)
    if prefix:
        api.include_router(start.outside())
        api.include_router(health.router(app))  # monitoring need not know the prefix
    api.state.prefix = prefix
    ours = _requests(api.router.routes)
    # The first route that matches answers, so ours replace those at the same paths.
    api.router.routes.extend(route for route in upstream if _is_kept(route, ours, prefix))
    made = [make(app) for make in MIDDLEWARE]
    kept = [layer for layer in layers if layer.cls is not CORSMiddleware]
    api.user_middleware = [layer for layer in made if layer is not None] + kept
    install_validation_errors(api)
    api.dependency_overrides[get_current_user] = _current_user
    _add_security_headers(api, prefix)
    api.middleware_stack = None
    api.openapi_schema = None


def _is_kept(route: BaseRoute, ours: set[tuple[str, str]], prefix: str) -> bool:
    """Return whether a route or router of MONAI Label has a path that is in the table of roles and is not replaced.

    Not kept are the routes for whole slide images, `/reload`, `/static`, and pages that load scripts of other servers.
    """
    requests = _requests([route]) - ours
    return any(is_listed(method, path.removeprefix(prefix)) for method, path in requests)


def _requests(routes: Sequence[BaseRoute]) -> set[tuple[str, str]]:
    return {
        (method, context.path)
        for context in iter_route_contexts(routes)
        for method in context.methods or ()
        if context.path is not None
    }


def _current_user(request: Request) -> User:
    """Tell MONAI Label's own routes who asks; `middleware.access` has checked it."""
    identity = request.state.identity
    return User(username=identity.name, roles=login.upstream_roles(identity.role))


def _add_security_headers(api: FastAPI, prefix: str) -> None:
    """Put the headers outside Starlette's handler of unexpected errors, so that its answers have them, too."""
    build = FastAPI.build_middleware_stack

    def with_headers() -> ASGIApp:
        return SecurityHeaders(build(api), ohif.start_page, prefix)

    api.build_middleware_stack = with_headers  # type: ignore[method-assign]  # Starlette has no setting for it
