"""The routes of images and labels, on a datastore that does what the test wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from lib.configs.limits import RequestLimits
from lib.server.routes import datastore
from lib.server.user_shares import UserShares

SOON = 10.0


class Store:
    """Takes long to read an image, and no time for a label."""

    def __init__(self) -> None:
        self.started, self.release = 0, threading.Event()

    def add_image(self, image: str, *_: Any) -> str:
        self.started += 1
        assert self.release.wait(SOON)
        return image

    def save_label(self, image: str, *_: Any) -> str:
        return image


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    app: Any = SimpleNamespace(
        config=RequestLimits(),
        readers=UserShares(2),
        savers=UserShares(1),
        datastore=lambda: store,
        on_save_label=lambda *_: None,
    )
    api = FastAPI()
    api.include_router(datastore.router(app))
    with TestClient(api) as client:
        yield client


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once something has happened in another thread."""
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_label_is_saved_while_uploads_wait_for_their_turn(client: TestClient, store: Store) -> None:
    def upload(number: int) -> int:
        files = {"file": (f"{number}.nii.gz", b"x")}
        return client.put(f"/datastore/image?image=i{number}", files=files).status_code

    with ThreadPoolExecutor(8) as users:
        uploads = [users.submit(upload, number) for number in range(8)]
        wait_for(lambda: store.started == 2)
        start = time.monotonic()
        answer = client.put("/datastore/label?image=a", files={"label": ("a.nii.gz", b"x")})
        assert answer.json() == {"image": "a", "label": "a"}
        assert time.monotonic() - start < SOON / 2
        assert store.started == 2
        store.release.set()
        assert [task.result() for task in uploads] == [200] * 8
