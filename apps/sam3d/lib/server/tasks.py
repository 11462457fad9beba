"""Background tasks in separate processes: one queue each for trainings, batch inference and scoring.

It replaces MONAI Label's AsyncTask (utils/async_tasks), with the same answers over HTTP. There, a process that could
not be started left its task SUBMITTED for good, and automatic training waited for it; a queued task could not be
cancelled; and the process inherited whatever the server's environment held.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Literal

import psutil
from fastapi import HTTPException
from pydantic import BaseModel, Field

from lib.server.environment import clean_environment

logger = logging.getLogger(__name__)

Kind = Literal["train", "batch_infer", "scoring"]
Status = Literal["SUBMITTED", "RUNNING", "DONE", "ERROR", "STOPPED"]
TITLES: dict[Kind, str] = {"train": "Train", "batch_infer": "Batch_infer", "scoring": "Scoring"}

KEPT_TASKS, KEPT_LINES, MAX_LINE, MAX_WAITING = 100, 20, 2000, 16
"""How many ended tasks, last lines of output, characters of a line and waiting tasks a queue holds."""

FOLDERS = re.compile(r"(?<![:/\w.])(?:/[^\s'\"/]+)+/")
"""The folders of a path on the server, which clients need not see."""

POLL_SECONDS = 1.0

LAST_LINES_WITHIN = 5.0
"""Seconds in which the last output is read after a process has ended; its own children may keep the pipe open."""


class Task(BaseModel):
    """One piece of background work, as clients see it.

    Attributes:
        id: Its name.
        status: Where it is between submission and end.
        request: The request.
        start_ts: When it was submitted.
        end_ts: When it ended.
        details: The last lines of its output, or why it did not start.
    """

    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    status: Status = "SUBMITTED"
    request: dict[str, object]
    start_ts: str = Field(default_factory=lambda: _now())
    end_ts: str | None = None
    details: deque[str] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, however."""
        return self.end_ts is not None


class TaskQueue:
    """Work of one kind, one process after the other, in the order of submission.

    Args:
        kind: The method of the app that a process runs.
        on_done: Called in the queue's thread after a process has ended without an error.
        command: Starts a process that reads a request, as JSON, from its standard input.
        may_start: Asked every second before a process is started, until it agrees.
    """

    def __init__(
        self,
        kind: Kind,
        on_done: Callable[[], object] | None = None,
        command: Sequence[str] | None = None,
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        self.kind = kind
        self._on_done, self._may_start = on_done, may_start
        self._command = list(command or (sys.executable, str(Path(__file__).with_name("background_main.py")), kind))
        self._tasks: deque[Task] = deque()
        self._changed = threading.Condition()
        self._one_at_a_time = threading.Lock()
        self._here = 0
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def submit(self, request: Mapping[str, object], *, enqueue: bool = False) -> Task:
        """Add work to the end of the queue.

        Args:
            request: What the process is to do; JSON.
            enqueue: Wait for work that is queued or running, instead of being rejected.

        Raises:
            HTTPException: 429; there is such work, or too much of it.
        """
        with self._changed:
            waiting = [task for task in self._tasks if not task.is_over]
            if (waiting or self._here) and not enqueue:
                raise self._busy()
            if len(waiting) >= MAX_WAITING:
                raise HTTPException(429, f"{len(waiting)} tasks wait already: try again later, or stop them (DELETE)")
            task = Task(request=json.loads(json.dumps(request)))
            self._tasks.append(task)
            self._forget_old()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"TASKS-{self.kind}", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return self._copy(task)

    @contextmanager
    def here(self, *, enqueue: bool = False) -> Iterator[None]:
        """Let the caller do such work in this process; nothing of the queue runs at the same time.

        Raises:
            HTTPException: 429; such work is queued or running.
        """
        with self._changed:
            if self._here or (not enqueue and self.is_busy()):
                raise self._busy()
            self._here += 1
        try:
            with self._one_at_a_time:
                yield
        finally:
            with self._changed:
                self._here -= 1

    def tasks(self) -> list[Task]:
        """Return all tasks that are remembered, the latest last."""
        with self._changed:
            return [self._copy(task) for task in self._tasks]

    def running(self) -> Task | None:
        """Return the task whose process runs."""
        return next((task for task in self.tasks() if task.status == "RUNNING"), None)

    def is_busy(self) -> bool:
        """Return whether a task is queued or running, here or in another process."""
        with self._changed:
            return bool(self._here) or any(not task.is_over for task in self._tasks)

    def is_waiting(self) -> bool:
        """Return whether a task is queued and has not begun."""
        with self._changed:
            return any(task.status == "SUBMITTED" for task in self._tasks)

    def status(self, *, all_tasks: bool = False, check_if_running: bool = False) -> Task | list[Task]:
        """Return the latest task, the running one, or all.

        Raises:
            HTTPException: 404; there is none.
        """
        if check_if_running:
            if running := self.running():
                return running
            raise HTTPException(404, f"No {TITLES[self.kind]} Tasks are currently Running")
        found = self.tasks()
        if not found:
            raise HTTPException(404, f"No {TITLES[self.kind]} Tasks Found")
        return found if all_tasks else found[-1]

    def stop(self) -> Task | None:
        """End the running task and cancel those that wait.

        Returns:
            The task that ran, else the first that waited, else None.
        """
        with self._changed:
            stopped = [task for task in self._tasks if not task.is_over]
            for task in stopped:
                if not task.details:  # Slicer shows the last line, and fails where there is none
                    task.details = deque(["stopped before it began"], KEPT_LINES)
                self._end(task, "STOPPED")
            process = self._process
            copies = [self._copy(task) for task in stopped]
        if process is not None:
            kill_tree(process.pid)
        return copies[0] if copies else None

    def _busy(self) -> HTTPException:
        return HTTPException(
            429, f"{TITLES[self.kind]} Task is Already Running: wait until it is done, or stop it (DELETE)"
        )

    def _forget_old(self) -> None:
        while len(self._tasks) > KEPT_TASKS and self._tasks[0].is_over:
            self._tasks.popleft()

    def _copy(self, task: Task) -> Task:
        return task.model_copy(update={"details": task.details and deque(task.details)})

    def _end(self, task: Task, status: Status) -> None:
        task.status, task.end_ts = status, _now()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self.is_waiting)
            while self.is_waiting() and not self._may_start():
                time.sleep(POLL_SECONDS)
            with self._one_at_a_time:
                with self._changed:
                    task = next((task for task in self._tasks if task.status == "SUBMITTED"), None)
                if task is not None:
                    self._run(task)

    def _run(self, task: Task) -> None:
        """Run one task to its end; whatever happens, it is over afterwards."""
        try:
            done = self._run_process(task)
        except Exception as error:
            logger.exception(f"{TITLES[self.kind]} task {task.id} failed")
            self._fail(task, f"{type(error).__name__}: {error}")
            return
        if done and self._on_done:
            try:
                self._on_done()
            except Exception:
                logger.exception(f"What follows {TITLES[self.kind]} task {task.id} failed")

    def _run_process(self, task: Task) -> bool:
        with self._changed:
            if task.status != "SUBMITTED":
                return False
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                env=clean_environment(str(task.request.get("gpus") or "all")),
            )
            self._process = process
            task.status, task.details = "RUNNING", deque(maxlen=KEPT_LINES)
        logger.info(f"{TITLES[self.kind]} task {task.id} runs in process {process.pid}")
        assert process.stdin is not None
        assert process.stdout is not None
        reader = threading.Thread(target=self._read, args=(task, process.stdout), daemon=True)
        reader.start()
        try:
            # The process sees only the requested GPUs, and should use all of them.
            _send(
                process.stdin, json.dumps({**task.request, "gpus": "all"} if "gpus" in task.request else task.request)
            )
        finally:
            code = process.wait()
            reader.join(LAST_LINES_WITHIN)
            with self._changed:
                self._process = None
        logger.info(f"{TITLES[self.kind]} task {task.id} ended with exit status {code}")
        if code:
            self._fail(task, f"the process was ended by signal {-code}" if code < 0 else f"exit status {code}")
            return False
        with self._changed:
            if not task.is_over:
                self._end(task, "DONE")
            return task.status == "DONE"

    def _fail(self, task: Task, reason: str) -> None:
        with self._changed:
            if not task.is_over:
                lines = task.details if task.details is not None else deque(maxlen=KEPT_LINES)
                if not lines or reason.startswith("the process"):
                    lines.append(reason[:MAX_LINE])
                task.details = lines
                self._end(task, "ERROR")

    def _read(self, task: Task, output: IO[str]) -> None:
        log = logging.getLogger(f"task_{self.kind}")
        for line in iter(lambda: output.readline(MAX_LINE), ""):
            if text := line.rstrip():
                log.info(text)
                with self._changed:
                    if task.details is not None:
                        task.details.append(FOLDERS.sub("", text))
        output.close()


class Tasks:
    """The queues of a server by kind.

    Args:
        on_trained: Called after a training has ended without an error.
        is_idle: Whether nobody needs the machine; scoring starts only then.
    """

    def __init__(
        self, on_trained: Callable[[], object] | None = None, is_idle: Callable[[], bool] = lambda: True
    ) -> None:
        self.train = TaskQueue("train", on_trained)
        self.batch_infer = TaskQueue("batch_infer")
        self.scoring = TaskQueue("scoring", may_start=lambda: not self.train.is_busy() and is_idle())

    def __iter__(self) -> Iterator[TaskQueue]:
        yield from (self.train, self.batch_infer, self.scoring)


def kill_tree(pid: int) -> None:
    """End a process and all that it has started, at once."""
    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def _send(pipe: IO[str], text: str) -> None:
    """Write a request; a process that has ended already reads nothing, and its exit status says why."""
    try:
        with pipe:
            pipe.write(text)
    except BrokenPipeError:
        logger.warning("A background process ended before it had read its request")


def _now() -> str:
    return datetime.today().strftime("%Y-%m-%d %H:%M:%S")
