"""Work in processes of its own: it ends, is stopped, or fails with a reason, and never blocks what comes after it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi import HTTPException

from lib.server.environment import clean_environment, search_path, visible_devices
from lib.server.tasks import MAX_WAITING, Task, TaskQueue

ECHO = "import json, sys; print(json.load(sys.stdin)['say'])"
SLEEP = "import sys, time; print('begun', flush=True); time.sleep(60)"


def queue(script: str, on_done: Callable[[], object] | None = None) -> TaskQueue:
    return TaskQueue("train", on_done, [sys.executable, "-S", "-c", script])


def until(check: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def last(tasks: TaskQueue) -> Task:
    return tasks.tasks()[-1]


def ended(tasks: TaskQueue) -> Task:
    """The latest task once it is over."""
    return until(lambda: last(tasks) if last(tasks).is_over else None)


def test_a_process_reads_its_request_and_its_last_lines_are_kept() -> None:
    done = threading.Event()
    tasks = queue(ECHO, done.set)
    begun = tasks.submit({"say": "x" * 200_000 + "\nthe end"})
    assert begun.model_dump(exclude_none=True).keys() == {"id", "status", "request", "start_ts"}
    over = ended(tasks)
    assert (over.status, over.id) == ("DONE", begun.id)
    assert over.details is not None
    assert over.details[-1] == "the end"
    assert len(over.details) <= 20
    assert done.wait(5)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise SystemExit('no GPU is free')", "no GPU is free"),
        ("import sys; sys.exit(3)", "exit status 3"),
        ("import os; os.abort()", "the process was ended by signal 6"),
        ("import sys; sys.stdin.close(); raise ValueError('unread')", "ValueError: unread"),
    ],
)
def test_a_process_that_fails_is_an_error_with_a_reason_and_the_next_one_runs(script: str, reason: str) -> None:
    followed = threading.Event()
    tasks = queue(script, followed.set)
    tasks.submit({"say": "x" * 200_000})
    over = ended(tasks)
    assert over.status == "ERROR"
    assert over.details is not None
    assert reason in over.details[-1]
    tasks.submit({})
    ended(tasks)
    assert not followed.is_set()


def test_what_a_process_prints_is_shown_without_the_server_s_folders() -> None:
    tasks = queue("print('File \"/srv/secret/app/main.py\", line 3: /srv/scans/mr.nii.gz of http://pacs/x: 1/2')")
    tasks.submit({})
    over = ended(tasks)
    assert list(over.details or ()) == ['File "main.py", line 3: mr.nii.gz of http://pacs/x: 1/2']


@pytest.mark.parametrize("command", [["/nowhere/python"], ["python\0"]])
def test_a_process_that_cannot_start_is_an_error_with_a_reason(command: list[str]) -> None:
    tasks = TaskQueue("train", None, command)
    tasks.submit({})
    over = ended(tasks)
    assert over.status == "ERROR"
    assert over.details
    assert not tasks.is_busy()


def test_a_second_request_is_rejected_or_waits_in_line() -> None:
    tasks = queue(SLEEP)
    tasks.submit({})
    with pytest.raises(HTTPException, match="Train Task is Already Running"):
        tasks.submit({})
    for _ in range(MAX_WAITING - 1):
        assert tasks.submit({}, enqueue=True).status == "SUBMITTED"
    with pytest.raises(HTTPException, match="wait already") as caught:
        tasks.submit({}, enqueue=True)
    assert caught.value.status_code == 429
    tasks.stop()


def test_stopping_ends_the_process_with_its_children_and_cancels_what_waits() -> None:
    child = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); time.sleep(60)"
    tasks = queue(child)
    begun = tasks.submit({})
    waiting = tasks.submit({}, enqueue=True)
    until(lambda: (running := tasks.running()) and running.details)
    family = psutil.Process().children(recursive=True)
    assert len(family) >= 2
    stopped = tasks.stop()
    assert stopped is not None
    assert (stopped.id, stopped.status) == (begun.id, "STOPPED")
    assert not tasks.is_busy()
    psutil.wait_procs(family, timeout=10)
    assert not [process for process in family if process.is_running()]
    again = tasks.submit({})
    assert {task.id: task.status for task in tasks.tasks()}[waiting.id] == "STOPPED"
    until(tasks.running)
    assert tasks.running().id == again.id
    tasks.stop()
    assert tasks.stop() is None


def test_a_stopped_task_has_a_last_line_for_slicer_although_it_wrote_none() -> None:
    tasks = queue("import time; time.sleep(60)")
    tasks.submit({})
    stopped = tasks.stop()
    assert stopped is not None
    assert stopped.details


def test_work_in_this_process_takes_its_turn() -> None:
    tasks = queue(ECHO)
    with tasks.here():
        with pytest.raises(HTTPException, match="Already Running"):
            tasks.submit({"say": "no"})
        with pytest.raises(HTTPException, match="Already Running"), tasks.here():
            pass
        tasks.submit({"say": "later"}, enqueue=True)
        time.sleep(0.2)
        assert last(tasks).status == "SUBMITTED"
    assert ended(tasks).status == "DONE"


def test_without_tasks_the_status_is_404() -> None:
    tasks = queue(ECHO)
    for check in (False, True):
        with pytest.raises(HTTPException) as caught:
            tasks.status(check_if_running=check)
        assert caught.value.status_code == 404


class TestEnvironment:
    def test_nothing_that_changes_what_python_imports_is_inherited(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONINSPECT", "LD_PRELOAD", "SECRET"):
            monkeypatch.setenv(name, str(tmp_path))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        environment = clean_environment()
        assert not [name for name, value in environment.items() if str(tmp_path) in value.split(":")]
        assert environment["PYTHONPATH"].split(":") == search_path()
        assert environment["OMP_NUM_THREADS"] == "1"

    def test_monai_labels_settings_travel_without_those_of_the_login(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from monailabel.config import settings

        monkeypatch.setattr(settings, "MONAI_LABEL_APP_CONF", {"labels": "tumor"})
        environment = clean_environment()
        assert environment["MONAI_LABEL_APP_CONF"] == '{"labels": "tumor"}'
        assert environment["MONAI_LABEL_DATASTORE_AUTO_RELOAD"] == "false"
        assert not [name for name in environment if name.startswith("MONAI_LABEL_AUTH")]

    def test_gpus_are_counted_among_those_that_the_server_sees(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert visible_devices("1,0", None) == "1,0"
        assert visible_devices("1", "4,7") == "7"
        assert visible_devices("2", "4,7") == ""
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
        assert clean_environment("0")["CUDA_VISIBLE_DEVICES"] == "4"
        assert clean_environment()["CUDA_VISIBLE_DEVICES"] == "4,7"


def test_work_that_must_wait_begins_when_it_may(tmp_path: Path) -> None:
    allowed = threading.Event()
    tasks = TaskQueue("scoring", None, [sys.executable, "-S", "-c", ECHO], may_start=allowed.is_set)
    tasks.submit({"say": "hello"})
    time.sleep(0.3)
    assert last(tasks).status == "SUBMITTED"
    allowed.set()
    assert ended(tasks).status == "DONE"


def test_waiting_work_can_be_stopped(tmp_path: Path) -> None:
    tasks = TaskQueue("scoring", None, [sys.executable, "-S", "-c", ECHO], may_start=lambda: False)
    tasks.submit({"say": "hello"})
    stopped = tasks.stop()
    assert stopped is not None
    assert last(tasks).status == "STOPPED"
