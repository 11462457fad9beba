"""The route that answers clicks, on an app whose model does what the test wants."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from lib.configs.app_config import AppConfig
from lib.errors import install_error_handlers
from lib.infers.answer import InferResult
from lib.server.inference_pool import InferencePool, PoolLoad
from lib.server.routes import infer
from sam3d_label.segmentation.cancellation import checkpoint

SOON = 10.0
CLICK = {"foreground": [[1, 2, 3]]}


class Model:
    def info(self) -> dict[str, Any]:
        return {"config": {"device": ["cpu"]}}


class InferApp:
    """An app with one model, which answers at once unless `held` is cleared."""

    def __init__(self, folder: Path, max_waiting: int = 8) -> None:
        self.config = AppConfig(labels=("tumor", "cyst"), max_clicks=5)
        self.pool = InferencePool(lambda _: 1, max_waiting)
        self.folder = folder
        self.started: list[dict[str, Any]] = []
        self.finished: list[dict[str, Any]] = []
        self.held = threading.Event()
        self.held.set()

    def models(self) -> dict[str, Any]:
        return {"sam3d": Model(), "sam3d_auto": Model()}

    def sessions(self) -> None:
        return None

    def datastore(self) -> Any:
        return None

    def infer(self, request: Mapping[str, Any]) -> InferResult:
        self.started.append(dict(request))
        assert self.held.wait(SOON)
        checkpoint()
        file = self.folder / f"{len(self.finished)}.nrrd"
        file.write_bytes(b"mask of " + request["image"].encode())
        self.finished.append(dict(request))
        return {"file": str(file), "label": str(file), "tag": "original", "params": {"label_names": {"tumor": 1}}}


@pytest.fixture
def app(tmp_path: Path) -> InferApp:
    return InferApp(tmp_path)


def serve(app: InferApp) -> FastAPI:
    api = FastAPI()
    install_error_handlers(api)
    api.include_router(infer.router(app))
    api.add_api_route("/info/", lambda: {"name": "SAM3D"})
    return api


@pytest.fixture
def client(app: InferApp) -> TestClient:
    return TestClient(serve(app), raise_server_exceptions=False)


def click(client: TestClient, on: str = "a", query: Mapping[str, str] | None = None, **params: Any) -> Any:
    data = {"params": json.dumps({**CLICK, **params})}
    return client.post("/infer/sam3d", params={"image": on, **(query or {})}, data=data)


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once something has happened in another thread."""
    done = threading.Event()
    for _ in range(int(SOON / 0.002)):
        if condition():
            return
        done.wait(0.002)
    raise AssertionError("it did not happen")


@pytest.fixture
def users() -> Any:
    with ThreadPoolExecutor(8) as pool:
        yield pool


class TestAnswers:
    def test_a_form_with_the_mask_and_its_description_of_the_announced_length(self, client: TestClient) -> None:
        answer = click(client)
        assert answer.headers["content-type"].startswith("multipart/form-data; boundary=")
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert b'name="params"\r\nContent-Type: application/json\r\n\r\n{"label_names":' in answer.content
        assert b'name="image"; filename="0.nrrd"' in answer.content
        assert b"\r\n\r\nmask of a\r\n--" in answer.content

    def test_the_mask_alone_or_its_description_alone(self, client: TestClient) -> None:
        assert click(client, query={"output": "image"}).content == b"mask of a"
        assert click(client, query={"output": "json"}).json() == {"label_names": {"tumor": 1}}

    @pytest.mark.parametrize("output", ["image", "json", "all"])
    def test_no_file_is_left(self, client: TestClient, tmp_path: Path, output: str) -> None:
        assert click(client, query={"output": output}).status_code == 200
        assert not list(tmp_path.iterdir())


class TestRequests:
    @pytest.mark.parametrize(
        ("params", "expected"),
        [
            ({"colour": 1}, "colour: no such key in params"),
            ({"bundle_path": "/tmp"}, "bundle_path: no such key"),
            ({"image": "b"}, "image: the server sets it"),
            ({"model": "sam3d_auto"}, "model: the server sets it"),
            ({"session": {"name": "x"}}, "session: the server sets it"),
            ({"foreground": [[1, 1, 1]] * 6}, "6 clicks are more than the 5 that are allowed (--conf max_clicks)"),
            ({"background": [[1, 1, 1]] * 3, "tumor": [[1, 1, 1]] * 2}, "6 clicks are more than the 5"),
            ({"points": [[1, 1, 1]] * 6}, "7 clicks are more than the 5"),
            ({"label": "x" * 501}, "501 characters is longer than the 500"),
            ({"foreground": [[float("nan"), 1, 1]]}, "NaN is not JSON"),
        ],
    )
    def test_what_is_wrong_is_named_and_nothing_is_computed(
        self, client: TestClient, app: InferApp, params: dict[str, Any], expected: str
    ) -> None:
        answer = click(client, **params)
        assert answer.status_code == 400
        assert expected in answer.json()["detail"]
        assert not app.started

    def test_json_nested_too_deep_or_too_long_is_rejected(self, client: TestClient) -> None:
        for depth in (17, 600, 100_000):
            answer = client.post("/infer/sam3d?image=a", data={"params": "[" * depth + "]" * depth})
            assert answer.status_code == 400
            assert "nested more than 16 levels" in answer.json()["detail"]
        answer = click(client, foreground=[[1, 1, 1]] * 200_000)
        assert answer.status_code == 400

    @pytest.mark.parametrize(
        "sent",
        [
            {
                "result_extension": ".nrrd",
                "result_dtype": "uint8",
                "result_compress": False,
                "restore_label_idx": False,
            },
            {"background": [], "tumor": [[1, 1, 1]], "cyst": [[2, 2, 2]], "label": "cyst"},
            {"points": [[1, 1, 1]], "point_labels": [1], "label_prompt": [2]},
            {"null": [[1, 1, 1]], "background": None},
            {"label": "x", "background": [], "device": "cpu", "reset_state": True, "client_id": "u", "slice": None},
            {"roi": [9, 1, 9, 1, 9, 1], "logging": "INFO", "label_info": [{"name": "tumor", "idx": 1}]},
            {"result": "uncertainty"},
        ],
    )
    def test_whatever_the_viewers_send_is_accepted(self, client: TestClient, sent: dict[str, Any]) -> None:
        assert click(client, **sent).status_code == 200

    def test_an_image_is_not_sent_along(self, client: TestClient, tmp_path: Path) -> None:
        answer = client.post("/infer/sam3d", files={"file": ("x.nii.gz", b"x")}, data={"params": "{}"})
        assert answer.status_code == 400
        assert "upload it first" in answer.json()["detail"]

    def test_an_unknown_model_and_a_missing_image(self, client: TestClient) -> None:
        answer = client.post("/infer/nobody?image=a", data={"params": "{}"})
        assert (answer.status_code, "sam3d_auto" in answer.json()["detail"]) == (404, True)
        assert client.post("/infer/sam3d", data={"params": "{}"}).status_code == 400


class TestLoad:
    def test_info_answers_while_a_click_is_computed(self, client: TestClient, app: InferApp, users: Any) -> None:
        app.held.clear()
        with client:
            slow = users.submit(click, client)
            wait_for(lambda: len(app.started) == 1)
            for _ in range(5):
                assert client.get("/info/").status_code == 200
            assert not app.finished
            app.held.set()
            assert slow.result().status_code == 200

    def test_an_overtaken_click_answers_409_and_clicks_of_others_are_computed(
        self, client: TestClient, app: InferApp, users: Any
    ) -> None:
        app.held.clear()
        waiting = lambda: app.pool.load()["cpu"].waiting  # noqa: E731
        with client:
            running = users.submit(click, client)
            wait_for(lambda: len(app.started) == 1)
            sent = []
            for asked in (
                {"client_id": "anna"},
                {"client_id": "ben"},
                {"client_id": "anna", "result": "uncertainty"},
                {"client_id": "anna", "label": "cyst"},
                {"client_id": "anna", "save_label": True},
            ):
                sent.append(users.submit(click, client, "b", **asked))
                wait_for(lambda: waiting() == len(sent))
            newer = users.submit(click, client, "b", client_id="anna", background=[[5, 5, 5]])
            overtaken = sent.pop(0).result()
            app.held.set()
            assert [each.result().status_code for each in (running, newer, *sent)] == [200] * 6
        assert overtaken.status_code == 409
        assert "a newer request of yours" in overtaken.json()["detail"]
        assert len(app.finished) == 6

    def test_a_full_queue_answers_503_with_the_time_to_wait(self, tmp_path: Path, users: Any) -> None:
        app = InferApp(tmp_path, max_waiting=1)
        app.held.clear()
        with TestClient(serve(app)) as client:
            running = users.submit(click, client, "a")
            wait_for(lambda: len(app.started) == 1)
            waits = users.submit(click, client, "b")
            wait_for(lambda: app.pool.load()["cpu"] == PoolLoad(waiting=1, running=1))
            full = click(client, "c")
            assert full.status_code == 503
            assert int(full.headers["retry-after"]) > 0
            assert "Send the request again" in full.json()["detail"]
            app.held.set()
            assert [each.result().status_code for each in (running, waits)] == [200, 200]
            assert click(client, "c").status_code == 200

    def test_one_user_cannot_fill_the_queue(self, tmp_path: Path, users: Any) -> None:
        app = InferApp(tmp_path, max_waiting=8)
        app.held.clear()
        waiting = lambda: app.pool.load()["cpu"].waiting  # noqa: E731
        with TestClient(serve(app)) as client:
            sent = [users.submit(click, client, "a")]
            wait_for(lambda: len(app.started) == 1)
            for number in range(4):
                sent.append(users.submit(click, client, "b", client_id="anna", label=f"x{number}"))
                wait_for(lambda: waiting() == len(sent) - 1)
            refused = click(client, "b", client_id="anna", save_label=True)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) > 0
            assert "as many as one user may have" in refused.json()["detail"]
            sent.append(users.submit(click, client, "c", client_id="ben"))
            wait_for(lambda: waiting() == 5)
            app.held.set()
            assert [each.result().status_code for each in sent] == [200] * 6
        assert [each["image"] for each in app.finished[:3]] == ["a", "b", "c"]

    def test_a_client_that_hangs_up_frees_its_place_and_leaves_no_file(self, app: InferApp, tmp_path: Path) -> None:
        app.held.clear()
        api = serve(app)

        async def scenario() -> list[int]:
            hung_up = asyncio.Event()
            statuses: list[int] = []
            first = asyncio.ensure_future(_request(api, "a", hung_up, statuses))
            while not app.started:
                await asyncio.sleep(0.001)
            second = asyncio.ensure_future(_request(api, "b", hung_up, statuses))
            while app.pool.load().get("cpu") != PoolLoad(waiting=1, running=1):
                await asyncio.sleep(0.001)
            hung_up.set()
            await asyncio.wait_for(asyncio.gather(first, second), SOON)
            assert app.pool.load()["cpu"].waiting == 0
            app.held.set()
            await asyncio.wait_for(_request(api, "c", asyncio.Event(), statuses), SOON)
            return statuses

        assert asyncio.run(scenario()) == [499, 499, 200]
        assert [request["image"] for request in app.started] == ["a", "c"]
        assert [request["image"] for request in app.finished] == ["c"], "the first one stopped at its checkpoint"
        assert not list(tmp_path.iterdir())

    def test_a_client_that_hangs_up_while_the_mask_is_sent_leaves_no_file(self, app: InferApp, tmp_path: Path) -> None:
        for output in ("image", "all"):
            with pytest.raises((OSError, ClientDisconnect)):
                asyncio.run(_request(serve(app), "a", asyncio.Event(), [], output=output, refuse=True))
        assert len(app.finished) == 2
        assert not list(tmp_path.iterdir())


async def _request(
    api: FastAPI, image: str, hung_up: asyncio.Event, statuses: list[int], output: str = "image", refuse: bool = False
) -> None:
    """Sends a click straight to the application, as a server would, and notes the status of the answer.

    Args:
        api: The application.
        image: Id of the image.
        hung_up: Set when the client closes the connection.
        statuses: Gets the status.
        output: What is asked for.
        refuse: Whether sending the body fails.
    """
    body = urlencode({"params": json.dumps(CLICK)}).encode()
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if pending:
            return pending.pop()
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        elif refuse:
            raise OSError("the client hung up")

    headers = [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", str(len(body)).encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/infer/sam3d",
        "raw_path": b"/infer/sam3d",
        "query_string": urlencode({"image": image, "output": output}).encode(),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "root_path": "",
    }
    await api(scope, receive, send)
