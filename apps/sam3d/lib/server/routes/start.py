"""The start page, the icon and a description of all routes, without anything from other servers."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import monailabel.endpoints
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from lib.server.paths import base_of, path_of, root_of

ICON = Path(monailabel.endpoints.__file__).resolve().parent / "static" / "favicon.ico"


def router(_: object) -> APIRouter:
    """Return the routes, at the paths of MONAI Label's app.py."""
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    def start(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{base_of(request.scope)}/sam3d/")

    @routes.get("/favicon.ico", include_in_schema=False)
    def icon() -> FileResponse:
        return FileResponse(ICON, media_type="image/x-icon")

    @routes.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(page(request.app.openapi()))

    @routes.get("/openapi.json", include_in_schema=False)
    def openapi(request: Request) -> dict[str, object]:
        root = root_of(request.scope)
        return {**request.app.openapi(), **({"servers": [{"url": root}]} if root else {})}

    return routes


def outside() -> APIRouter:
    """Return routes that lead from the paths without a prefix to those with it (`MONAI_LABEL_API_STR`)."""
    routes = APIRouter()

    def lead(request: Request) -> RedirectResponse:
        path = path_of(request.scope)
        return RedirectResponse(f"{base_of(request.scope)}{'/sam3d/' if path == '/' else path}")

    for path in ("/", "/sam3d/", "/sam3d/login", "/docs"):
        routes.add_api_route(path, lead, methods=["GET"], include_in_schema=False)
    return routes


def page(document: dict[str, Any]) -> str:  # as FastAPI returns it
    """Return a page that lists the routes of an OpenAPI document."""
    rows = [
        f"<tr><td>{method.upper()}</td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(operation.get('summary', ''))}</td></tr>"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    title = escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="sam3d/page.css"></head><body><main>'
        f'<section class="full"><h1>{title}</h1><p>Parameters and answers: <a href="openapi.json">openapi.json</a></p>'
        f'<div class="scroll"><table>{"".join(rows)}</table></div></section></main></body></html>'
    )
