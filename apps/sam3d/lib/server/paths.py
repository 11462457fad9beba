"""Paths of requests without what a proxy or a setting puts in front of them."""

from __future__ import annotations

from starlette.types import Scope


def path_of(scope: Scope, prefix: str = "") -> str:
    """Return the path of a request as routes see it.

    Args:
        scope: The request.
        prefix: Path prefix of MONAI Label's routes (`MONAI_LABEL_API_STR`).
    """
    path: str = scope["path"]
    for front in (scope.get("root_path", ""), prefix):
        if front and (path == front or path.startswith(f"{front}/")):
            path = path[len(front) :]
    return path
