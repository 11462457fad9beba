"""Places for work of which one user gets a part."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lib.server.user_shares import BusyError, UserShares


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Inside:
    """Requests that have a place, by user."""

    def __init__(self, shares: UserShares) -> None:
        self.shares, self.release = shares, asyncio.Event()
        self.now: list[str | None] = []

    async def send(self, user: str | None) -> None:
        async with self.shares.place(user):
            self.now.append(user)
            await self.release.wait()


def test_one_user_leaves_places_for_others_and_all_are_served_in_the_end() -> None:
    async def scenario() -> None:
        inside = Inside(UserShares(4, most=2))
        tasks = [asyncio.create_task(inside.send(user)) for user in ["anna"] * 8 + ["ben"]]
        await settle()
        assert sorted(map(str, inside.now)) == ["anna", "anna", "ben"]
        inside.release.set()
        await asyncio.gather(*tasks)
        assert inside.now.count("anna") == 8

    asyncio.run(scenario())


def test_those_who_are_not_told_apart_may_have_all_places() -> None:
    async def scenario() -> None:
        inside = Inside(UserShares(4, most=2))
        tasks = [asyncio.create_task(inside.send(None)) for _ in range(8)]
        await settle()
        assert len(inside.now) == 4
        inside.release.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_more_than_may_wait_are_refused_and_places_are_free_again_afterwards() -> None:
    async def scenario() -> None:
        inside = Inside(UserShares(4, most=1, most_waiting=1))
        tasks = [asyncio.create_task(inside.send("anna")) for _ in range(2)]
        await settle()
        with pytest.raises(BusyError):
            await inside.send("anna")
        inside.release.set()
        await asyncio.gather(*tasks, inside.send("ben"))
        await inside.send("anna")

    asyncio.run(scenario())


def test_a_request_that_is_given_up_while_it_waits_frees_its_place() -> None:
    async def scenario() -> None:
        inside = Inside(UserShares(4, most=1, most_waiting=1))
        tasks = [asyncio.create_task(inside.send("anna")) for _ in range(2)]
        await settle()
        tasks[1].cancel()
        await settle()
        waits = asyncio.create_task(inside.send("anna"))
        inside.release.set()
        await asyncio.gather(tasks[0], waits)

    asyncio.run(scenario())


def test_work_runs_in_threads_of_its_own() -> None:
    async def scenario() -> None:
        shares, release = UserShares(50), threading.Event()
        waiting = [asyncio.create_task(shares.run("anna", release.wait)) for _ in range(50)]
        await settle()
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "other"), 5) == "other"
        release.set()
        assert all(await asyncio.gather(*waiting))

    asyncio.run(scenario())
