"""What the load benchmark counts, on a server whose masks are made up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import load
import nibabel as nib
import numpy as np
import pytest
from fastapi import FastAPI, Form, HTTPException, Response


@pytest.fixture
def cases(tmp_path):
    return load.write_cases(tmp_path, ["a", "b", "c"], (12, 12, 8))


class Server:
    """A server whose masks are the request, except where they are spoilt; notes who asked for what."""

    def __init__(self, spoilt: str = "", failing: str = "") -> None:
        self.api, self.asked = FastAPI(), 0
        self.clicks: list[tuple[str, Any]] = []
        self.saved: list[str] = []
        self.spoilt, self.failing = spoilt, failing
        self.api.add_api_route("/infer/sam3d", self.infer, methods=["POST"])
        self.api.add_api_route("/datastore/label", self.save, methods=["PUT"])
        self.api.add_api_route("/activelearning/first", lambda: {}, methods=["POST"])
        self.api.add_api_route("/info/", self.info)

    async def infer(self, image: str, params: str = Form()) -> Response:
        self.clicks.append((image, json.loads(params)))
        await asyncio.sleep(0)
        if image == self.failing:
            raise HTTPException(503, "busy")
        request = json.loads(params)
        del request["client_id"]
        return Response(repr((image, request, image == self.spoilt)).encode())

    async def save(self, image: str) -> dict[str, str]:
        self.saved.append(image)
        return {}

    async def info(self) -> dict[str, str]:
        self.asked += 1
        return {}

    def run(self, job):
        async def connected():
            transport = httpx.ASGITransport(self.api)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await job(client)

        return asyncio.run(connected())


def test_every_case_is_clicked_twice_and_submitted_once_and_each_kind_is_timed(cases) -> None:
    server = Server()
    log = server.run(lambda client: load.work(client, cases, 2))
    assert sorted(server.saved) == ["a", "b", "c"]
    assert len(server.clicks) == len(log.masks) == 6
    assert {params["client_id"] for _, params in server.clicks} == {"user-0", "user-1"}
    counts = {kind: summary["requests"] for kind, summary in log.summary().items()}
    assert counts == {"first click": 3, "next click": 3, "submit": 3, "next sample": 3, "info": server.asked}
    assert not log.errors


def test_masks_that_differ_from_those_of_one_user_are_named(cases) -> None:
    log = Server().run(lambda client: load.work(client, cases, 3))
    alone = Server().run(lambda client: load.masks_of_one_user(client, cases))
    assert load.different(log, alone) == []
    spoilt = Server(spoilt="b").run(lambda client: load.masks_of_one_user(client, cases))
    assert load.different(log, spoilt) == ["b, first click", "b, next click"]


def test_what_fails_is_counted_and_the_others_go_on(cases) -> None:
    server = Server(failing="a")
    log = server.run(lambda client: load.work(client, cases, 1))
    assert len(log.errors) == 2
    assert all("503" in error and "click" in error for error in log.errors)
    assert sorted(server.saved) == ["b", "c"]


def test_clicks_over_which_memory_is_watched_are_as_many_as_asked_for(cases) -> None:
    server = Server()
    log = server.run(lambda client: load.click_only(client, cases, 4, 10))
    assert len(server.clicks) == len(log.seconds["next click"]) == 10


def test_the_volumes_differ_and_the_first_click_is_in_the_ball(cases, tmp_path) -> None:
    arrays = [np.asarray(nib.Nifti1Image.from_filename(tmp_path / f"{case.image}.nii.gz").dataobj) for case in cases]
    assert not np.array_equal(arrays[0], arrays[1])
    for case, array in zip(cases, arrays, strict=True):
        assert array[case.inside] > 150 > array[case.outside]
