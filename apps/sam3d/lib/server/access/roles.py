"""Table of the role that each route needs. A route that is not in the table needs an admin."""

from __future__ import annotations

import re

from starlette.routing import compile_path

from lib.server.access.identity import Role

PARAMETER = re.compile(r"\{\w+(:\w+)?\}")

ROLES: dict[Role, tuple[str, ...]] = {
    Role.NOBODY: (
        "GET /auth/",
        "POST /auth/token",
        "GET /favicon.ico",
        "GET /openapi.json",  # describes this program, not its data
        "GET /sam3d/health",
        "GET /sam3d/health/live",
        "GET /sam3d/login",
        "POST /sam3d/login",
        "GET /sam3d/login.css",
        "GET /sam3d/login/start",
        "GET /sam3d/login/callback",
        "POST /sam3d/logout",
    ),
    Role.ANNOTATOR: (
        "GET /",
        "GET /auth/token/valid",
        "GET /docs",
        "GET /info/",
        "POST /infer/{model}",
        "GET /session/{session_id}",
        "PUT /session/",
        "DELETE /session/{session_id}",
        "POST /activelearning/{strategy}",
        "GET /datastore/",
        "PUT /datastore/",
        "GET /datastore/image",
        "PUT /datastore/image",
        "GET /datastore/image/info",
        "PUT /datastore/image/info",
        "GET /datastore/label",
        "PUT /datastore/label",
        "GET /datastore/label/info",
        "PUT /datastore/label/info",
        "PUT /datastore/updatelabelinfo",
        "GET /datastore/segmentation",
        "GET /datastore/dataset",
        "GET /train/",
        "GET /batch/infer",
        "GET /scoring/",
        "GET /ohif/{path:path}",
        "GET /proxy/dicom/{path:path}",
        "POST /proxy/dicom/{path:path}",
        "GET /sam3d/",
        "GET /sam3d/page.css",
        "GET /sam3d/page/{part:path}",
        "GET /sam3d/cases",
        "GET /sam3d/cases/view",
        "GET /sam3d/cases/volume",
        "GET /sam3d/state",
        "GET /sam3d/progress",
        "GET /sam3d/training",
        "GET /sam3d/learning_curve.csv",
        "GET /sam3d/learning_curve.png",
        "GET /sam3d/versions/{version}/card.json",
    ),
    Role.ADMIN: (
        "DELETE /datastore/",
        "DELETE /datastore/image",
        "DELETE /datastore/label",
        "POST /train/",
        "POST /train/{model}",
        "DELETE /train/",
        "POST /batch/infer/{model}",
        "DELETE /batch/infer",
        "POST /scoring/",
        "POST /scoring/{method}",
        "DELETE /scoring/",
        "GET /model/{model}",
        "GET /model/info/{model}",
        "PUT /model/{model}",
        "DELETE /model/{model}",
        "GET /logs/",
        "GET /logs/gpu",
        "GET /sam3d/metrics",
        "POST /sam3d/rollback",
    ),
}
"""Role -> the requests that it may send in addition to those of the roles before it, in Starlette's path syntax."""

_ENTRIES = [
    (method, path, compile_path(path)[0], role)
    for role, requests in ROLES.items()
    for method, path in (request.split(" ") for request in requests)
]


def needed_role(method: str, path: str) -> Role:
    """Return the role that a request needs.

    Args:
        method: HTTP method; HEAD counts as GET.
        path: Path of the request without a prefix, decoded once. A slash at its end makes no difference, because
            Starlette redirects to the path that exists.
    """
    method = "GET" if method == "HEAD" else method
    other = path[:-1] if path.endswith("/") else f"{path}/"
    for candidate in (path, other):
        for listed, _, pattern, role in _ENTRIES:
            if listed == method and pattern.match(candidate):
                return role
    return Role.ADMIN


def is_listed(method: str, path: str) -> bool:
    """Return whether the table has this route.

    Args:
        method: HTTP method; HEAD counts as GET.
        path: Path of the route in Starlette's syntax, such as `/infer/{model}`. The names of parameters do not matter.
    """
    method = "GET" if method == "HEAD" else method
    return (method, _without_names(path)) in _LISTED


def _without_names(path: str) -> str:
    return PARAMETER.sub(r"{\1}", path)


_LISTED = {(method, _without_names(path)) for method, path, _, _ in _ENTRIES}
