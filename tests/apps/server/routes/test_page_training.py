"""`GET /sam3d/training`: how the latest training ended, for viewers that announce it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from lib.server.routes import page
from lib.server.tasks import Task
from lib.trainers.stats import TrainStats

EARLIER = {
    **{"version": "0001", "gate": {"passes": True, "reason": "of an earlier training"}},
    **{"epoch": 9, "total_epochs": 9, "start_ts": 1, "total_time": 4.2},
}
NO_PROGRESS = {"epoch": 0, "total_epochs": None, "best_metric": None}
NOTHING = {**NO_PROGRESS, "version": None, "passes": None, "reason": None, "error": None}


def answer(tasks: list[Task], stats: dict[str, Any]) -> dict[str, Any]:
    """The answer of a server with these trainings, the latest last, and what the latest one has written."""
    app: Any = SimpleNamespace(
        tasks=SimpleNamespace(train=SimpleNamespace(tasks=lambda: tasks)),
        trainer=SimpleNamespace(latest=lambda: TrainStats.model_validate({"best_metric": None, **stats})),
    )
    api = FastAPI()
    api.include_router(page.router(app))
    result: dict[str, Any] = TestClient(api).get("/sam3d/training").json()
    return result


def task(name: str, status: Any) -> Task:
    end = "2026-01-01 00:00:00" if status in ("DONE", "ERROR", "STOPPED") else None
    return Task(id=name, status=status, request={}, end_ts=end)


def test_before_the_first_training_there_is_none() -> None:
    assert answer([], EARLIER) == {"id": None, "status": None, **NOTHING}


@pytest.mark.parametrize("status", ["SUBMITTED", "RUNNING"])
def test_a_training_that_goes_on_has_no_result_of_an_earlier_one(status: str) -> None:
    assert answer([task("a", "DONE"), task("b", status)], EARLIER) == {"id": "b", "status": status, **NOTHING}


def test_a_training_that_goes_on_says_how_far_it_is() -> None:
    found = answer([task("a", "RUNNING")], {"epoch": 2, "total_epochs": 7, "start_ts": 1, "best_metric": 0.5})
    assert (found["epoch"], found["total_epochs"], found["best_metric"]) == (2, 7, 0.5)


def test_the_default_number_of_epochs_is_not_that_of_a_training_that_has_not_begun_to_report() -> None:
    assert answer([task("a", "RUNNING")], {"total_epochs": 20})["total_epochs"] is None


def test_the_latest_training_comes_with_its_version_and_the_gate_s_reason() -> None:
    stats = {"version": "0002", "gate": {"passes": False, "reason": "worse on 3 validation cases"}, "means": {}}
    assert answer([task("a", "STOPPED"), task("b", "DONE")], stats) == {
        **{"id": "b", "status": "DONE", "version": "0002", "passes": False},
        **{"reason": "worse on 3 validation cases", "error": None, **NO_PROGRESS},
    }


def test_a_failed_training_comes_with_its_reason() -> None:
    found = answer([task("a", "ERROR")], {"error": "no image has a final label yet"})
    assert found == {"id": "a", "status": "ERROR", **NOTHING, "error": "no image has a final label yet"}
