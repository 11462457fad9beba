"""The pool that computes clicks: its queue, what a newer request replaces, and clients that hang up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from lib.server.inference_pool import (
    InferencePool,
    OvertakenError,
    PoolLoad,
    QueueFullError,
    ShareFullError,
    Turn,
    worker_count,
)
from sam3d_label.segmentation.cancellation import WorkCancelledError, checkpoint

SOON = 10.0
"""Seconds after which a test gives up."""


async def never() -> None:
    """A client that stays."""
    await asyncio.Event().wait()


class Blocker:
    """Work that starts, and ends when it is let go."""

    def __init__(self, answer: Any = None) -> None:
        self.started, self.release = threading.Event(), threading.Event()
        self.answer = answer

    def __call__(self) -> Any:
        """Do it."""
        self.started.set()
        assert self.release.wait(SOON)
        checkpoint()
        return self.answer


class Caller:
    """Sends requests to a pool with one worker, and waits until the pool has them."""

    def __init__(self, pool: InferencePool) -> None:
        self.pool = pool

    async def send(self, work: Callable[[], Any], volume: str = "a", **more: Any) -> asyncio.Task[Any]:
        """A request on its way; it is queued or running when this returns."""
        more = {"device": "cpu", "gone": never, **more}
        task = asyncio.ensure_future(self.pool.run(work, volume=volume, **more))
        await asyncio.sleep(0)
        return task


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), SOON)


def one_worker(max_waiting: int = 8) -> Caller:
    return Caller(InferencePool(lambda _: 1, max_waiting))


def test_the_event_loop_goes_on_while_a_request_is_computed() -> None:
    async def scenario() -> int:
        caller, slow = one_worker(), Blocker("mask")
        task = await caller.send(slow)
        await until(slow.started.is_set)
        turns = 0
        for _ in range(100):
            await asyncio.sleep(0)
            turns += 1
        assert not task.done()
        slow.release.set()
        assert await task == "mask"
        return turns

    assert asyncio.run(scenario()) == 100


def test_a_newer_request_of_the_same_user_takes_the_place_of_one_that_waits() -> None:
    async def scenario() -> list[str]:
        caller, slow, order = one_worker(), Blocker(), []
        await caller.send(slow)
        await until(slow.started.is_set)
        old = await caller.send(lambda: order.append("old"), "b", turn=Turn("anna"))
        other = await caller.send(lambda: order.append("other user"), "b", turn=Turn("ben"))
        new = await caller.send(lambda: order.append("new"), "b", turn=Turn("anna"))
        with pytest.raises(OvertakenError):
            await old
        slow.release.set()
        await asyncio.gather(other, new)
        return order

    assert asyncio.run(scenario()) == ["new", "other user"]


def test_a_request_that_is_being_computed_is_not_replaced() -> None:
    async def scenario() -> list[Any]:
        caller, slow = one_worker(), Blocker("first")
        first = await caller.send(slow, turn=Turn("anna"))
        await until(slow.started.is_set)
        second = await caller.send(lambda: "second", turn=Turn("anna"))
        slow.release.set()
        return list(await asyncio.gather(first, second))

    assert asyncio.run(scenario()) == ["first", "second"]


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        (Turn("anna"), Turn("anna"), True),
        (Turn("anna"), Turn("ben"), False),
        (Turn("address", frozenset("a")), Turn("address", frozenset("ab")), True),
        (Turn("address", frozenset("ab")), Turn("address", frozenset("a")), False),
        (Turn("address", frozenset("a")), Turn("address", frozenset("b")), False),
    ],
)
def test_users_who_share_an_address_replace_only_requests_that_theirs_continue(
    older: Turn, newer: Turn, expected: bool
) -> None:
    assert newer.replaces(older) is expected


def test_a_full_queue_takes_no_more_and_is_open_again_afterwards() -> None:
    async def scenario() -> None:
        caller, slow = one_worker(max_waiting=2), Blocker()
        running = await caller.send(slow)
        await until(slow.started.is_set)
        waiting = [await caller.send(lambda: None, "b", turn=Turn("anna")), await caller.send(lambda: None, "c")]
        with pytest.raises(QueueFullError, match="2 requests are waiting for cpu"):
            await (await caller.send(lambda: None, "d"))
        replaced = await caller.send(lambda: None, "b", turn=Turn("anna"))
        slow.release.set()
        with pytest.raises(OvertakenError):
            await waiting[0]
        await asyncio.gather(running, waiting[1], replaced)
        assert await (await caller.send(lambda: "open", "d")) == "open"

    asyncio.run(scenario())


def test_users_take_turns_however_many_requests_one_of_them_sends() -> None:
    async def scenario() -> list[str]:
        caller, slow, order = one_worker(64), Blocker(), []
        await caller.send(slow, user="anna")
        await until(slow.started.is_set)
        sent = [await caller.send(lambda: order.append("anna"), "b", user="anna") for _ in range(4)]
        others = ("ben", "cleo", "ben")
        sent += [await caller.send(partial(order.append, user), "b", user=user) for user in others]
        slow.release.set()
        await asyncio.gather(*sent)
        return order

    assert asyncio.run(scenario()) == ["ben", "cleo", "anna", "ben", "anna", "anna", "anna"]


def test_one_user_gets_a_part_of_the_queue_and_leaves_the_rest_to_others() -> None:
    async def scenario() -> None:
        caller, slow = one_worker(max_waiting=64), Blocker()
        sent = [await caller.send(slow, user="anna")]
        await until(slow.started.is_set)
        sent += [await caller.send(lambda: None, "b", user="anna", turn=Turn(number)) for number in range(16)]
        with pytest.raises(ShareFullError, match="16 requests of yours are waiting"):
            await (await caller.send(lambda: None, "b", user="anna"))
        sent += [await caller.send(lambda: None, "b", user=f"user-{number}") for number in range(48)]
        replaced = await caller.send(lambda: None, "b", user="anna", turn=Turn(0))
        slow.release.set()
        with pytest.raises(OvertakenError):
            await sent.pop(1)
        await asyncio.gather(*sent, replaced)

    asyncio.run(scenario())


def test_a_client_that_hangs_up_leaves_the_queue_and_is_not_computed() -> None:
    async def scenario() -> list[str]:
        caller, slow, computed, left = one_worker(), Blocker(), [], asyncio.Event()
        running = await caller.send(slow)
        await until(slow.started.is_set)
        gone = await caller.send(lambda: computed.append("gone"), "b", gone=left.wait)
        assert caller.pool.load() == {"cpu": PoolLoad(waiting=1, running=1)}
        left.set()
        with pytest.raises(WorkCancelledError):
            await gone
        assert caller.pool.load() == {"cpu": PoolLoad(waiting=0, running=1)}
        slow.release.set()
        await running
        await (await caller.send(lambda: computed.append("next")))
        return computed

    assert asyncio.run(scenario()) == ["next"]


def test_work_stops_at_its_next_checkpoint_once_the_client_has_gone() -> None:
    async def scenario() -> list[str]:
        caller, slow, left = one_worker(), Blocker("mask"), asyncio.Event()
        kept: list[str] = []
        dropped: list[str] = []

        def work() -> None:
            slow()
            kept.append("went on")

        task = await caller.send(work, gone=left.wait, discard=dropped.append)
        await until(slow.started.is_set)
        left.set()
        with pytest.raises(WorkCancelledError):
            await task
        slow.release.set()
        await (await caller.send(lambda: None, "b"))
        return kept + dropped

    assert asyncio.run(scenario()) == []


def test_an_answer_that_came_too_late_is_thrown_away() -> None:
    async def scenario() -> list[str]:
        caller, left = one_worker(), asyncio.Event()
        dropped: list[str] = []
        started, release = threading.Event(), threading.Event()

        def work() -> str:
            started.set()
            assert release.wait(SOON)
            return "mask"

        task = await caller.send(work, gone=left.wait, discard=dropped.append)
        await until(started.is_set)
        left.set()
        with pytest.raises(WorkCancelledError):
            await task
        release.set()
        await until(lambda: bool(dropped))
        return dropped

    assert asyncio.run(scenario()) == ["mask"]


def test_a_volume_is_worked_on_by_one_request_at_a_time_while_others_go_on() -> None:
    async def scenario() -> None:
        caller, first = Caller(InferencePool(lambda _: 2, 8)), Blocker()
        same, other = Blocker("same volume"), Blocker("other volume")
        task = await caller.send(first, "a")
        await until(first.started.is_set)
        waits = await caller.send(same, "a")
        passes = await caller.send(other, "b")
        await until(other.started.is_set)
        assert not same.started.is_set()
        other.release.set()
        assert await passes == "other volume"
        assert not same.started.is_set()
        same.release.set()
        first.release.set()
        await task
        assert await waits == "same volume"

    asyncio.run(scenario())


def test_an_error_reaches_the_one_who_asked_and_the_worker_goes_on() -> None:
    async def scenario() -> Any:
        caller = one_worker()
        with pytest.raises(ZeroDivisionError):
            await (await caller.send(lambda: 1 // 0))
        return await (await caller.send(lambda: "next"))

    assert asyncio.run(scenario()) == "next"


def test_a_gpu_computes_one_request_at_a_time_and_the_cpu_at_least_one() -> None:
    assert worker_count("cuda:0") == 1
    assert worker_count("cpu") >= 1
