"""Login of clients (`/auth/`, as MONAI Label's clients expect it) and of browsers (`/sam3d/login`)."""

from __future__ import annotations

import re
import secrets
from functools import partial
from html import escape
from pathlib import Path
from string import Template
from typing import Annotated, Literal, Protocol
from urllib.parse import urlencode

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from monailabel.config import settings
from pydantic import BaseModel

from lib.server.access.code_flow import CodeFlows
from lib.server.access.identity import Identity, Role
from lib.server.access.login import COOKIE, Login, OpenedSession
from lib.server.middleware.access import (
    LOGIN_PAGE,
    bearer_token,
    client_address,
    cookie_name,
    cookie_path,
    cookie_value,
)
from lib.server.paths import base_of
from lib.server.routes.form_routes import form_route

FILES = Path(__file__).resolve().parents[3] / "page"
HOME = "/sam3d/"
FLOW_COOKIE = "sam3d_login"
MOST_FIELD_BYTES = 8192
"""Size of one field of a form that anybody may send."""

WRONG = "Name and password do not belong together, or the login server forbids passwords"
LOCAL_PATH = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")


class LoginApp(Protocol):
    """The parts of the app that these routes use."""

    login: Login | None


class Token(BaseModel):
    """Answer of `/auth/token`; without a login, there is no token."""

    access_token: str | None
    token_type: str | None
    expires_in: int | None = None


def router(app: LoginApp) -> APIRouter:
    """Return the routes of clients, at the paths of MONAI Label's endpoints/login.py.

    Args:
        app: Has the server's login.
    """
    routes = APIRouter(tags=["Auth"], route_class=form_route(MOST_FIELD_BYTES, max_files=0))
    login = app.login

    @routes.get("/auth/", summary="Whether the server has a login")
    def auth_enabled() -> dict[str, object]:
        return {
            "enabled": login is not None,
            "client_id": settings.MONAI_LABEL_AUTH_CLIENT_ID,
            "realm": settings.MONAI_LABEL_AUTH_REALM_URI if login and login.oidc else None,
        }

    @routes.post("/auth/token", summary="Exchange a name and an API key, or a user's password, for a bearer token")
    async def token(request: Request, username: Annotated[str, Form()], password: Annotated[str, Form()]) -> Token:
        if login is None:
            return Token(access_token=None, token_type=None)
        opened = await _opened(login, username, password, client_address(request.scope))
        return Token(access_token=opened.token, token_type="bearer", expires_in=int(login.sessions.seconds))

    @routes.get("/auth/token/valid", summary="Who the token belongs to")
    def valid(request: Request) -> dict[str, object]:
        identity: Identity = request.state.identity
        return {"username": identity.name, "email": None, "name": identity.name, "roles": upstream_roles(identity.role)}

    return routes


def pages(app: LoginApp) -> APIRouter:
    """Return the routes of browsers.

    Args:
        app: Has the server's login.
    """
    routes = APIRouter(include_in_schema=False, route_class=form_route(MOST_FIELD_BYTES, max_files=0))
    login = app.login
    flows = CodeFlows(login.oidc) if login and login.oidc else None

    @routes.get(LOGIN_PAGE)
    def page(request: Request, next: str = "") -> HTMLResponse:
        return HTMLResponse(_page(request, login, next))

    @routes.get("/sam3d/login.css")
    def style() -> FileResponse:
        return FileResponse(FILES / "login.css")

    @routes.post(LOGIN_PAGE)
    async def log_in(
        request: Request,
        name: Annotated[str, Form()] = "",
        key: Annotated[str, Form()] = "",
        next: Annotated[str, Form()] = "",
    ) -> Response:
        if login is None:
            return RedirectResponse(_home(request), 303)
        try:
            opened = await _opened(login, name, key, client_address(request.scope))
        except HTTPException as error:
            return HTMLResponse(_page(request, login, next, error.detail), error.status_code, error.headers)
        answer = RedirectResponse(local_path(next) or _home(request), 303)
        _set_cookie(answer, request, COOKIE, opened.token, login.sessions.seconds)
        return answer

    @routes.post("/sam3d/logout")
    def log_out(request: Request) -> Response:
        if login is not None:
            for secret in (_cookie(request, COOKIE), bearer_token(request.headers)):
                login.sessions.close(secret)
        answer = RedirectResponse(f"{_root(request)}{LOGIN_PAGE}", 303)
        _delete_cookie(answer, request, COOKIE)
        return answer

    @routes.get("/sam3d/login/start")
    async def start(request: Request, next: str = "") -> Response:
        if flows is None or login is None:
            raise HTTPException(404, "This server knows no login server; set MONAI_LABEL_AUTH_ENABLE to use one")
        visitor, wanted = client_address(request.scope), local_path(next) or _home(request)
        address, state = await login.at_provider(visitor, partial(flows.start, _callback(request), wanted))
        answer = RedirectResponse(address, 303)
        # The login server's redirect has to carry it, so it cannot be strict.
        _set_cookie(answer, request, FLOW_COOKIE, state, 600, same_site="lax")
        return answer

    @routes.get("/sam3d/login/callback")
    async def callback(request: Request, state: str = "", code: str = "", error: str = "") -> Response:
        if flows is None or login is None:
            raise HTTPException(404, "This server knows no login server; set MONAI_LABEL_AUTH_ENABLE to use one")
        address = client_address(request.scope)
        try:
            login.check_address(address)
            if (
                error
                or not code
                or not state
                or not secrets.compare_digest(_cookie(request, FLOW_COOKIE).encode(), state.encode())
            ):
                raise login.failed(address, "The login was not completed: start again")
            finish = partial(flows.finish, state, code, _callback(request))
            token, lasts, wanted = await login.at_provider(address, finish)
            opened = await login.at_provider(address, partial(login.open_with_token, token, lasts))
        except HTTPException as failure:
            return HTMLResponse(_page(request, login, "", failure.detail), failure.status_code, failure.headers)
        # The browser came from another site, so it would not send a strict cookie with a redirect.
        answer = HTMLResponse(Template(_CONTINUE).substitute(next=escape(wanted)))
        _set_cookie(answer, request, COOKIE, opened.token, lasts or login.sessions.seconds)
        _delete_cookie(answer, request, FLOW_COOKIE)
        return answer

    return routes


def upstream_roles(role: Role) -> list[str]:
    """Return MONAI Label's names of a role."""
    annotator = [
        settings.MONAI_LABEL_AUTH_ROLE_REVIEWER,
        settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR,
        settings.MONAI_LABEL_AUTH_ROLE_USER,
    ]
    if role == Role.ADMIN:
        return [settings.MONAI_LABEL_AUTH_ROLE_ADMIN, *annotator]
    return annotator if role == Role.ANNOTATOR else []


def local_path(wanted: str) -> str:
    """Return the path after the login; empty if it is not a path of this server."""
    return wanted if LOCAL_PATH.fullmatch(wanted) else ""


async def _opened(login: Login, name: str, secret: str, address: str) -> OpenedSession:
    """Log in with an API key, or with the password of a user of the login server."""
    oidc = login.oidc
    if oidc is None or login.find_key(secret.strip()) is not None:
        return login.open(name, secret, address)
    login.check_address(address)

    def ask() -> OpenedSession:
        answer = oidc.ask_for_token({"grant_type": "password", "username": name, "password": secret})
        if answer is None:
            raise login.failed(address, WRONG)
        return login.open_with_token(str(answer["access_token"]))

    return await login.at_provider(address, ask)


def _cookie(request: Request, name: str) -> str:
    return cookie_value(request.headers, cookie_name(request.scope, name))


def _set_cookie(
    answer: Response,
    request: Request,
    name: str,
    value: str,
    seconds: float,
    same_site: Literal["lax", "strict"] = "strict",
) -> None:
    answer.set_cookie(
        cookie_name(request.scope, name),
        value,
        max_age=int(seconds),
        path=cookie_path(request.scope),
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite=same_site,
    )


def _delete_cookie(answer: Response, request: Request, name: str) -> None:
    _set_cookie(answer, request, name, "", 0)


def _page(request: Request, login: Login | None, wanted: str, problem: str = "") -> str:
    identity: Identity = request.state.identity
    root = _root(request)
    wanted = local_path(wanted)
    if login is None:
        body = "<p>This server has no login: it answers to this machine only.</p>"
    elif not identity.anonymous:
        body = Template(_LOGGED_IN).substitute(name=escape(identity.name), role=identity.role.name.lower(), root=root)
    else:
        oidc = Template(_OIDC).substitute(root=root, query=urlencode({"next": wanted})) if login.oidc else ""
        body = Template(_FORM).substitute(root=root, next=escape(wanted), oidc=oidc)
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return Template(_PAGE).substitute(root=root, body=alert + body)


def _root(request: Request) -> str:
    return escape(base_of(request.scope))


def _home(request: Request) -> str:
    return f"{_root(request)}{HOME}"


def _callback(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers['host']}{_root(request)}/sam3d/login/callback"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SAM3D: log in</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="$root/sam3d/login.css">
</head>
<body><main><h1>SAM3D</h1>$body</main></body>
</html>
"""
_FORM = """<form method="post" action="$root/sam3d/login">
<label>Name <input name="name" autocomplete="username" required autofocus></label>
<label>API key or password <input name="key" type="password" autocomplete="current-password" required></label>
<input type="hidden" name="next" value="$next">
<button>Log in</button>
</form>$oidc"""
_OIDC = """
<p><a class="main" href="$root/sam3d/login/start?$query">Log in with the hospital's account</a></p>"""
_LOGGED_IN = """<p>You are logged in as <strong>$name</strong> ($role).</p>
<p><a href="$root/sam3d/">Learning curve and versions</a> · <a href="$root/ohif/">OHIF</a></p>
<form method="post" action="$root/sam3d/logout"><button>Log out</button></form>"""
_CONTINUE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=$next"><title>SAM3D</title></head>
<body><p><a href="$next">Continue</a></p></body></html>
"""
