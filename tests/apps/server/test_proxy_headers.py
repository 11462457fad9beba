"""The server under a path prefix: of a proxy (X-Forwarded-Prefix), of uvicorn (--root_path), or MONAI_LABEL_API_STR."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from lib.patches import monai_label as installing
from lib.patches import ohif
from lib.server.access.login import Login
from lib.server.middleware.access import Access
from lib.server.middleware.same_origin import SameOrigin
from lib.server.proxy_headers import ProxyHeaders, forwarded_prefix
from lib.server.routes import login as routes_of_login
from lib.server.routes import proxy, start
from sam3d_label.access.api_keys import ApiKeys
from tests.helpers.login_helpers import BASE

WITH_HEADER, ROOT_PATH, API_STR = "X-Forwarded-Prefix", "--root_path", "MONAI_LABEL_API_STR"


class Server:
    """A server with a login under a prefix.

    Args:
        way: How it gets the prefix, which is `/one/two`.
        login: Its login.
        trusted: Address of the proxy that it trusts.
    """

    def __init__(self, way: str, login: Login, trusted: str = "testclient") -> None:
        api_prefix = "/one/two" if way == API_STR else ""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(installing, "ROUTERS", (routes_of_login.router, ohif.router, proxy.router))
            patch.setattr(installing, "OWN_ROUTERS", (start.router, routes_of_login.pages))
            patch.setattr(installing.health, "router", lambda app: start.router(app))
            layers = Middleware(SameOrigin, hosts=()), Middleware(Access, login=login, prefix=api_prefix)
            patch.setattr(installing, "MIDDLEWARE", tuple(lambda _, layer=layer: layer for layer in layers))
            api: Any = FastAPI()
            api.add_api_route(f"{api_prefix}/info/", who, methods=["GET"])
            installing.install(SimpleNamespace(login=login), api, api_prefix)
        app: Any = ProxyHeaders(api, [trusted])
        headers = {"X-Forwarded-Prefix": "/one/two/"} if way == WITH_HEADER else {}
        self.client = TestClient(
            with_root(app) if way == ROOT_PATH else app, base_url=BASE, follow_redirects=False, headers=headers
        )
        self.sent = "/one/two" if way == API_STR else ""

    def get(self, path: str, **more: Any) -> Any:
        """Get what is at a path below the prefix."""
        return self.client.get(self.sent + path, **more)

    def browse(self, path: str) -> Any:
        """Get a page as a browser behind the proxy does, whose paths begin with the prefix."""
        assert path.startswith("/one/two/"), path
        return self.get(path.removeprefix("/one/two"), headers={"Accept": "text/html"})


def who(request: Request) -> dict[str, str]:
    return {"name": request.state.identity.name}


def with_root(app: Any) -> Any:
    """The application as uvicorn calls it with --root_path."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "root_path": "/one/two", "path": f"/one/two{scope['path']}"}
        await app(scope, receive, send)

    return call


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    return ApiKeys(tmp_path / "keys.json")


@pytest.fixture(params=[WITH_HEADER, ROOT_PATH, API_STR])
def server(request: pytest.FixtureRequest, keys: ApiKeys) -> Server:
    return Server(request.param, Login(keys, None, 3600))


def test_a_browser_is_led_to_the_login_and_back(server: Server, keys: ApiKeys) -> None:
    to_login = server.browse("/one/two/ohif/viewer")
    assert to_login.headers["location"] == "/one/two/sam3d/login?next=%2Fone%2Ftwo%2Fohif%2Fviewer"
    page = server.browse("/one/two/sam3d/login").text
    assert 'action="/one/two/sam3d/login"' in page
    assert server.browse(re.findall('stylesheet" href="([^"]+)"', page)[0]).status_code == 200
    form = {"name": "anna", "key": keys.add("anna", "annotator"), "next": "/one/two/ohif/viewer"}
    answer = server.client.post(f"{server.sent}/sam3d/login", data=form)
    assert answer.headers["location"] == "/one/two/ohif/viewer"
    assert "path=/one/two;" in f"{answer.headers['set-cookie'].lower()};"
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert server.get("/info/", headers={"Cookie": cookie}).json() == {"name": "anna"}
    start_page = server.get("/", headers={"Cookie": cookie})
    assert start_page.headers["location"] == "/one/two/sam3d/"


def test_over_https_the_cookie_is_one_that_browsers_accept_below_a_prefix(server: Server, keys: ApiKeys) -> None:
    server.client.base_url = "https://127.0.0.1:8000"
    form = {"name": "anna", "key": keys.add("anna", "annotator")}
    cookie = server.client.post(f"{server.sent}/sam3d/login", data=form).headers["set-cookie"]
    assert cookie.startswith("__Secure-sam3d_session=")
    assert "path=/one/two;" in f"{cookie.lower()};"
    assert server.get("/info/", headers={"Cookie": cookie.partition(";")[0]}).json() == {"name": "anna"}


def test_routes_need_the_same_roles(server: Server, keys: ApiKeys) -> None:
    assert server.get("/info/").status_code == 401
    key = {"Authorization": f"Bearer {keys.add('anna', 'annotator')}"}
    assert server.get("/info/", headers=key).json() == {"name": "anna"}
    assert server.get("/auth/").status_code == 200
    assert server.get("/openapi.json").status_code == 200
    assert server.get("/docs", headers=key).status_code == 200
    assert server.get("/nothing", headers=key).status_code == 403


def test_a_redirect_to_the_slash_keeps_the_prefix(server: Server, keys: ApiKeys) -> None:
    key = {"Authorization": f"Bearer {keys.add('anna', 'annotator')}"}
    assert server.get("/info", headers=key).headers["location"].endswith("/one/two/info/")


@pytest.mark.skipif(not (ohif.FOLDER / "index.html").is_file(), reason="MONAI Label was installed without OHIF")
def test_ohif_requests_everything_below_the_prefix(server: Server, keys: ApiKeys) -> None:
    key = {"Authorization": f"Bearer {keys.add('anna', 'annotator')}"}
    page = server.get("/ohif/", headers=key)
    assert not re.findall(r"""["'](/ohif/[^"']*)""", page.text)
    found = re.findall(r"""["'](/one/two/ohif/[^"']+\.(?:js|css))""", page.text)
    assert found
    for path in found:
        answer = server.get(path.removeprefix("/one/two"), headers=key)
        assert answer.status_code == 200
        assert not re.findall(r"""["'(=]/ohif/""", answer.text)
    config = server.get("/ohif/app-config.js", headers=key).text
    assert "routerBasename: '/one/two/ohif/'" in config
    assert config.count("'/one/two/proxy/dicom/") == 3
    (script,) = re.findall(r"window\.PUBLIC_URL = '/one/two/ohif/'", page.text)
    inline = next(text for text in re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL) if script in text)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.headers["content-security-policy"]


@pytest.mark.skipif(not (ohif.FOLDER / "index.html").is_file(), reason="MONAI Label was installed without OHIF")
def test_ohif_s_additions_are_sent_with_its_configuration_and_name_no_absolute_path(
    server: Server, keys: ApiKeys
) -> None:
    key = {"Authorization": f"Bearer {keys.add('anna', 'annotator')}"}
    config = server.get("/ohif/app-config.js", headers=key).text
    scripts = sorted(ohif.EXTENSION.glob("*.js"), key=lambda file: (file.name == ohif.LAST, file.name))
    at = [config.index(file.read_text(encoding="utf-8")) for file in scripts]
    assert len(at) > 3
    assert at == sorted(at)
    assert config.index("routerBasename") < at[0]
    for file in scripts:
        text = file.read_text(encoding="utf-8")
        assert not re.findall(r"""["'`]/(?:sam3d|datastore|info|infer|train|ohif|proxy)""", text)


def test_paths_without_the_prefix_lead_to_those_with_it(keys: ApiKeys) -> None:
    server = Server(API_STR, Login(keys, None, 3600))
    for path in ("/", "/sam3d/", "/docs"):
        answer = server.client.get(path, headers={"Accept": "text/html"})
        assert answer.headers["location"] == "/one/two/sam3d/login"
    key = {"Authorization": f"Bearer {keys.add('anna', 'annotator')}"}
    assert server.client.get("/docs", headers=key).headers["location"] == "/one/two/docs"
    assert server.client.get("/sam3d/login").headers["location"] == "/one/two/sam3d/login"


def test_only_a_trusted_proxy_sets_a_prefix(keys: ApiKeys) -> None:
    server = Server(WITH_HEADER, Login(keys, None, 3600), trusted="10.0.0.7")
    answer = server.client.get("/ohif/", headers={"Accept": "text/html"})
    assert answer.headers["location"] == "/sam3d/login?next=%2Fohif%2F"


ELSEWHERE = ["", "/", "//evil.example", "/../x", "/a/../b", "/a b", '/a"x', "https://evil.example", "/a?b", "/a;b", "a"]


@pytest.mark.parametrize("value", ELSEWHERE)
def test_a_prefix_that_could_lead_elsewhere_is_ignored(value: str) -> None:
    assert forwarded_prefix([(b"x-forwarded-prefix", value.encode())]) == ""


def test_two_prefixes_are_ignored() -> None:
    assert forwarded_prefix([(b"x-forwarded-prefix", b"/a"), (b"x-forwarded-prefix", b"/b")]) == ""
