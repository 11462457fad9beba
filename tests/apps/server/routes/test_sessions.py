"""The routes of sessions: what clients see, what is left on disk, and whose a session is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from lib.errors import install_error_handlers
from lib.server.access.identity import LOCAL_USER, Identity, Role
from lib.server.routes import sessions
from lib.server.uploads.sessions import SafeSessions
from lib.server.user_shares import UserShares
from tests.helpers.app_helpers import write_nifti
from tests.helpers.dicom_files import write_series


class SessionsApp:
    def __init__(self, store: Path) -> None:
        self.store: SafeSessions | None = SafeSessions(str(store))
        self.identity = LOCAL_USER
        self.readers = UserShares(4)

    def sessions(self) -> SafeSessions | None:
        return self.store


@pytest.fixture
def app(tmp_path: Path) -> SessionsApp:
    return SessionsApp(tmp_path / "sessions")


@pytest.fixture
def client(app: SessionsApp) -> TestClient:
    api = FastAPI()
    install_error_handlers(api)

    @api.middleware("http")
    async def log_in(request: Request, call_next: Any) -> Any:
        request.state.identity = app.identity
        return await call_next(request)

    api.include_router(sessions.router(app))
    return TestClient(api, raise_server_exceptions=False)


def create(client: TestClient, tmp_path: Path, query: str = "", name: str = "local.nii.gz") -> Any:
    content = write_nifti(tmp_path / "local.nii.gz").read_bytes()
    return client.put(f"/session/{query}", files={"files": (name, content)})


def test_the_keys_of_monai_label_without_the_servers_paths(client: TestClient, tmp_path: Path) -> None:
    created = create(client, tmp_path).json()
    info = created["session_info"]
    assert set(info) == {"name", "path", "image", "meta", "create_ts", "last_access_ts", "expiry"}
    assert (info["name"], info["image"]) == (created["session_id"], "image.nii.gz")
    found = client.get(f"/session/{created['session_id']}")
    assert found.json() == info
    assert str(tmp_path) not in found.text + json.dumps(created)


def test_its_image_can_be_downloaded_until_it_is_removed(client: TestClient, tmp_path: Path) -> None:
    session = create(client, tmp_path).json()["session_id"]
    image = client.get(f"/session/{session}?image=true")
    assert image.content == (tmp_path / "local.nii.gz").read_bytes()
    assert client.delete(f"/session/{session}").json()["name"] == session
    assert client.get(f"/session/{session}").status_code == 404
    assert client.delete(f"/session/{session}").status_code == 404
    assert not list((tmp_path / "sessions").iterdir())


def test_a_series_is_not_one_file(client: TestClient, tmp_path: Path) -> None:
    write_series(tmp_path / "slices")
    files = [("files", (path.name, path.read_bytes())) for path in (tmp_path / "slices").iterdir()]
    session = client.put("/session/", files=files).json()["session_id"]
    assert client.get(f"/session/{session}?image=true").status_code == 400


@pytest.mark.parametrize(
    ("name", "content"), [("sitecustomize.py", b"x"), ("x.nii.gz", b"no image"), ("x.zip", b"x"), ("x.nii.gz", b"")]
)
@pytest.mark.parametrize("query", ["", "?uncompress=true"])
def test_a_bad_upload_is_400_and_leaves_nothing(
    client: TestClient, tmp_path: Path, name: str, content: bytes, query: str
) -> None:
    answer = client.put(f"/session/{query}", files={"files": (name, content)})
    assert answer.status_code == 400
    assert str(tmp_path) not in answer.text
    assert not list((tmp_path / "sessions").rglob("*"))


def test_the_server_sets_the_longest_expiry(client: TestClient, tmp_path: Path) -> None:
    expiries = [
        create(client, tmp_path, f"?expiry={wish}").json()["session_info"]["expiry"] for wish in (100, 0, 10**9)
    ]
    assert expiries == [100, 3600, 3600]


def test_a_session_of_a_user_is_unknown_to_other_users_except_administrators(
    client: TestClient, app: SessionsApp, tmp_path: Path
) -> None:
    app.identity = Identity("anna", Role.ANNOTATOR)
    session = create(client, tmp_path).json()["session_id"]
    assert client.get(f"/session/{session}").status_code == 200
    app.identity = Identity("ben", Role.ANNOTATOR)
    assert client.get(f"/session/{session}").status_code == 404
    assert client.delete(f"/session/{session}").status_code == 404
    app.identity = Identity("carla", Role.ADMIN)
    assert client.delete(f"/session/{session}").status_code == 200


def test_a_server_without_sessions_reports_it(client: TestClient, app: SessionsApp, tmp_path: Path) -> None:
    app.store = None
    answer = create(client, tmp_path)
    assert answer.status_code == 406
    assert "upload the image" in answer.json()["detail"]
