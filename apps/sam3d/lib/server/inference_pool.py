"""Runs the models in a few threads per device, so that the event loop stays free and the queue stays short."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch

from sam3d_label.segmentation.cancellation import WorkCancelledError, cancellable

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
MOST_CPU_WORKERS = 4

SHARE, LEAST_SHARE = 4, 4
"""One user may have a quarter of the places in a queue, and four where that is less."""

MOST_USERS = 10_000
"""Users whose turns are remembered."""


class QueueFullError(Exception):
    """As many requests wait for a device as are allowed."""


class ShareFullError(Exception):
    """As many requests of one user wait for a device as one user may have there."""


class OvertakenError(Exception):
    """A newer request of the same user has replaced a request that was still waiting."""


@dataclass(frozen=True)
class Turn:
    """Decides which waiting requests a newer one replaces.

    Attributes:
        key: The user, model, image and label.
        clicks: The clicks of a user who is known only by an address, which others may share: such a request replaces
            an earlier one only if it has all of its clicks. None for a user who is known by name.
    """

    key: Hashable
    clicks: frozenset[Hashable] | None = None

    def replaces(self, older: Turn) -> bool:
        """Return whether this turn makes an older one unnecessary."""
        if self.key != older.key:
            return False
        return self.clicks is None or (older.clicks is not None and older.clicks <= self.clicks)


@dataclass(eq=False)
class InferenceJob(Generic[Answer]):
    """One request.

    Attributes:
        work: Computes the answer.
        volume: Jobs on the same volume run one after the other.
        turn: Which waiting jobs it replaces; None replaces none and is replaced by none.
        user: The user; users take turns. None for an unknown user, whose share is not limited.
        future: The answer, once there is one.
        since: When it was queued, in seconds of `time.monotonic`.
    """

    work: Callable[[], Answer]
    volume: Hashable
    turn: Turn | None = None
    user: Hashable = None
    future: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _context: Context = field(default_factory=copy_context)  # the request's, so that log lines have its id

    def run(self) -> None:
        """Compute the answer unless the request was cancelled."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            answer = self._context.run(self._work)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(answer)

    def _work(self) -> Answer:
        with cancellable(self._cancelled.is_set):
            return self.work()

    def cancel(self) -> None:
        """Stop at the next checkpoint, or do not start."""
        self._cancelled.set()
        self.future.cancel()

    def overtake(self) -> None:
        """End with an `OvertakenError` unless the request was cancelled."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(OvertakenError())


@dataclass(frozen=True)
class PoolLoad:
    """Load of a device.

    Attributes:
        waiting: Requests in the queue.
        running: Requests that are being computed.
        oldest_seconds: How long the one that has waited longest has waited.
    """

    waiting: int
    running: int
    oldest_seconds: float = field(default=0.0, compare=False)


def worker_count(device: str) -> int:
    """Return how many requests a device computes at the same time.

    A GPU is kept busy by one. On the CPU a request alternates between code that uses all threads of PyTorch and code
    that uses one, so that a second one fills the gaps; more only take memory, unless PyTorch has few threads. The
    number of PyTorch's own threads stays as it is: a mask may depend on it in the last bit.
    """
    if device != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_CPU_WORKERS, cores, max(2, cores // torch.get_num_threads()))


class InferencePool:
    """A bounded queue and a few threads for each device.

    Users take turns, and each may use only a part of the queue, so that one user cannot block the others.

    Args:
        workers: Number of threads for a device, given its name.
        max_waiting: Requests that may wait for one device.
    """

    def __init__(self, workers: Callable[[str], int], max_waiting: int) -> None:
        self._workers, self._max_waiting = workers, max_waiting
        self._devices: dict[str, _Device] = {}
        self._lock = threading.Lock()

    async def run(
        self,
        work: Callable[[], Answer],
        *,
        device: str,
        volume: Hashable,
        turn: Turn | None = None,
        user: Hashable = None,
        gone: Callable[[], Awaitable[object]],
        discard: Callable[[Answer], object] = lambda _: None,
    ) -> Answer:
        """Compute an answer in a thread of a device.

        Args:
            work: Computes it; stops at `sam3d_label.segmentation.cancellation.checkpoint` once the client has gone.
            device: Name of the device.
            volume: Requests for the same volume run one after the other.
            turn: Which waiting requests this one replaces.
            user: The user.
            gone: Returns once the client has gone.
            discard: Called with the answer of a cancelled request.

        Raises:
            QueueFullError: Too many requests wait.
            ShareFullError: Too many requests of this user wait.
            OvertakenError: A newer request has replaced this one.
            WorkCancelledError: The client has gone.
        """
        job = InferenceJob(work, volume, turn, user)
        queue = self._device(device)
        queue.add(job)
        answer = asyncio.ensure_future(asyncio.wrap_future(job.future))
        watch = asyncio.ensure_future(gone())
        delivered = False
        try:
            await asyncio.wait((answer, watch), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise WorkCancelledError("the client has gone")
            result = answer.result()
            delivered = True
            return result
        finally:
            watch.cancel()
            if not delivered:
                job.future.add_done_callback(lambda future: _discard(future, discard))
                answer.cancel()
                queue.drop(job)

    def load(self) -> dict[str, PoolLoad]:
        """Return the load of each device that was used so far."""
        with self._lock:
            devices = dict(self._devices)
        return {name: device.load() for name, device in devices.items()}

    def states(self) -> dict[str, int]:
        """Return how many requests wait, and are computed, on all devices."""
        loads = self.load().values()
        return {"waiting": sum(load.waiting for load in loads), "running": sum(load.running for load in loads)}

    def oldest_seconds(self) -> float:
        """Return the seconds that the request that has waited longest has waited; 0 when none waits."""
        return max((load.oldest_seconds for load in self.load().values()), default=0.0)

    def _device(self, name: str) -> _Device:
        with self._lock:
            if name not in self._devices:
                self._devices[name] = _Device(name, max(1, self._workers(name)), self._max_waiting)
            return self._devices[name]


class _Queued(Protocol):
    """What a queue uses of an `InferenceJob` with any answer."""

    volume: Hashable
    turn: Turn | None
    user: Hashable
    since: float

    def run(self) -> None: ...
    def cancel(self) -> None: ...
    def overtake(self) -> None: ...


class _Device:
    def __init__(self, name: str, workers: int, max_waiting: int) -> None:
        self._name, self._workers, self._max_waiting = name, workers, max_waiting
        self._changed = threading.Condition()
        self._share = max(LEAST_SHARE, max_waiting // SHARE)
        self._waiting: list[_Queued] = []
        self._turns: OrderedDict[Hashable, int] = OrderedDict()  # number of each user's latest turn
        self._count = itertools.count(1)
        self._volumes: set[Hashable] = set()
        self._threads: list[threading.Thread] = []

    def load(self) -> PoolLoad:
        with self._changed:
            since = min((job.since for job in self._waiting), default=time.monotonic())
            return PoolLoad(len(self._waiting), len(self._volumes), time.monotonic() - since)

    def add(self, job: _Queued) -> None:
        """Queue a job, at the position of the first that it replaces."""
        with self._changed:
            older = [each for each in self._waiting if job.turn and each.turn and job.turn.replaces(each.turn)]
            if not older and len(self._waiting) >= self._max_waiting:
                raise QueueFullError(f"{len(self._waiting)} requests are waiting for {self._name}")
            own = 0 if job.user is None else sum(each.user == job.user for each in self._waiting)
            if not older and own >= self._share:
                raise ShareFullError(f"{own} requests of yours are waiting for {self._name}")
            place = self._waiting.index(older[0]) if older else len(self._waiting)
            self._waiting = [each for each in self._waiting if each not in older]
            self._waiting.insert(place, job)
            if len(self._threads) < self._workers:
                name = f"inference {self._name} {len(self._threads)}"
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()
            self._changed.notify()
        for each in older:
            each.overtake()

    def drop(self, job: _Queued) -> None:
        """Free the place of a cancelled job."""
        with self._changed, suppress(ValueError):
            self._waiting.remove(job)
        job.cancel()

    def _work(self) -> None:
        while True:
            with self._changed:
                while (job := self._next()) is None:
                    self._changed.wait()
                self._waiting.remove(job)
                self._volumes.add(job.volume)
                self._note_turn(job.user)
            try:
                job.run()
            except Exception:  # a callback of the future failed; the thread must continue
                logger.exception("A request failed after it was computed")
            with self._changed:
                self._volumes.remove(job.volume)
                self._changed.notify_all()
            del job  # so that its volume and answer are not kept until the next one

    def _next(self) -> _Queued | None:
        """Return the first job of the user who has waited longest for a turn."""
        free = (job for job in self._waiting if job.volume not in self._volumes)
        return min(free, key=lambda job: self._turns.get(job.user, 0), default=None)

    def _note_turn(self, user: Hashable) -> None:
        self._turns[user] = next(self._count)
        self._turns.move_to_end(user)
        while len(self._turns) > MOST_USERS:
            self._turns.popitem(last=False)


def _discard(future: Future[Answer], discard: Callable[[Answer], object]) -> None:
    if not future.cancelled() and future.exception() is None:
        discard(future.result())
