"""Requests that read volumes take turns; all others go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request, UploadFile
from starlette.testclient import TestClient

from lib.server.access.identity import Identity, Role
from lib.server.routes.form_routes import form_route, reading_route
from lib.server.user_shares import UserShares

AT_A_TIME = 2


class Work:
    """Counts how many requests are handled at a time."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.now = self.most = 0

    def __call__(self) -> None:
        """Take a while."""
        with self.guard:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.05)
        with self.guard:
            self.now -= 1


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def client(work: Work) -> Iterator[TestClient]:
    readers = UserShares(AT_A_TIME)
    uploads = APIRouter(route_class=form_route(1024, readers=readers))
    answers = APIRouter(route_class=reading_route(readers))

    @uploads.put("/file")
    def put(file: UploadFile) -> int:
        work()
        return len(file.file.read())

    @uploads.get("/file")
    def get() -> None:
        work()

    @answers.get("/volume")
    def read() -> None:
        work()

    api = FastAPI()
    api.include_router(uploads)
    api.include_router(answers)
    with TestClient(api) as client:
        yield client


def send(client: TestClient, *requests: str) -> list[int]:
    def one(request: str) -> int:
        method, path = request.split()
        files = {"file": ("a", b"abc")} if method == "PUT" else None
        return client.request(method, path, files=files).status_code

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(one, requests))


def test_uploads_and_answers_share_the_turns(client: TestClient, work: Work) -> None:
    assert send(client, *["PUT /file", "GET /volume"] * 4) == [200] * 8
    assert work.most == AT_A_TIME


def test_requests_that_read_no_volume_do_not_wait(client: TestClient, work: Work) -> None:
    assert send(client, *["GET /file"] * 8) == [200] * 8
    assert work.most > AT_A_TIME


def test_one_user_leaves_turns_for_others() -> None:
    api, release = FastAPI(), threading.Event()
    answers = APIRouter(route_class=reading_route(UserShares.halves(4)))
    now: list[str] = []

    @answers.get("/volume")
    def read(request: Request) -> None:
        now.append(request.state.identity.name)
        assert release.wait(10)

    @api.middleware("http")
    async def identify(request: Request, go_on: Any) -> Any:
        request.state.identity = Identity(request.headers["user"], Role.ANNOTATOR)
        return await go_on(request)

    api.include_router(answers)
    with TestClient(api) as client, ThreadPoolExecutor(9) as users:
        sent = [users.submit(client.get, "/volume", headers={"user": "anna"}) for _ in range(8)]
        sent.append(users.submit(client.get, "/volume", headers={"user": "ben"}))
        deadline = time.monotonic() + 10
        while len(now) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert sorted(now) == ["anna", "anna", "ben"]
        release.set()
        assert [answer.result().status_code for answer in sent] == [200] * 9
