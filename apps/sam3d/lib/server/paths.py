"""Paths of requests without what a proxy or a setting puts in front of them, and what that is."""

from __future__ import annotations

from starlette.types import Scope


def path_of(scope: Scope, prefix: str = "") -> str:
    """Return the path of a request as routes see it.

    Args:
        scope: The request.
        prefix: Path prefix of MONAI Label's routes (`MONAI_LABEL_API_STR`).
    """
    path: str = scope["path"]
    for front in (root_of(scope), prefix):
        if front and (path == front or path.startswith(f"{front}/")):
            path = path[len(front) :]
    return path


def root_of(scope: Scope) -> str:
    """Return what a proxy puts in front of paths; empty, or with a slash at its beginning and none at its end.

    Args:
        scope: The request.
    """
    return str(scope.get("app_root_path", scope.get("root_path", ""))).rstrip("/")


def base_of(scope: Scope) -> str:
    """Return the prefix of this server's routes in a browser's address bar.

    Args:
        scope: The request, which has reached the application.
    """
    state = getattr(scope.get("app"), "state", None)
    return root_of(scope) + str(getattr(state, "prefix", ""))
