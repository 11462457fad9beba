"""Many annotators at one server: seconds of each kind of request, errors, masks compared with those of a single user.

    python benchmarks/load.py [--users 1,4,16,64] [--training 4] [--requests 2000] [--json FILE]

Each annotator works on volumes of their own: a first click, a next click, the label is submitted, the next sample is
asked for. Meanwhile `/info/` is asked for all the time. With `--training`, so many annotators do the same while a
training runs. With `--requests`, four annotators then send so many clicks, in which the server's memory must not grow.
A second server computes every mask again for one user alone, and the masks must be equal to the last bit.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import httpx
import nibabel as nib
import numpy as np
import psutil
import typer
from app_server import server

from sam3d_label.image.limits import MIB
from sam3d_label.io import write_json

PATIENCE = 600.0
"""Seconds after which a request counts as failed."""

THINK_INFO = 0.1
"""Seconds between two requests for `/info/`."""

POLL_SECONDS = 0.1
"""Seconds between two looks at the memory of the server."""

KINDS = ("first click", "next click", "submit", "next sample", "info")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class LoadCase:
    """A volume that is stored on the server, and two clicks in it."""

    image: str
    inside: tuple[int, int, int]
    outside: tuple[int, int, int]


@dataclass
class Log:
    """The events of a run.

    Attributes:
        seconds: Of every request that was answered, by kind.
        masks: Hash of every mask, by image and kind of click.
        errors: What failed.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    masks: dict[tuple[str, str], str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the number of requests of each kind and the median, 95th percentile and maximum of their seconds."""
        return {
            kind: {
                "requests": len(seconds),
                "p50": round(median(seconds), 3),
                "p95": round(float(np.percentile(seconds, 95)), 3),
                "max": round(max(seconds), 3),
            }
            for kind in KINDS
            if (seconds := self.seconds[kind])
        }


class Annotator:
    """One user of the server.

    Args:
        client: A way to the server.
        name: What they call themselves.
        log: What happened to them.
    """

    def __init__(self, client: httpx.AsyncClient, name: str, log: Log) -> None:
        self._client, self._name, self._log = client, name, log

    async def label(self, case: LoadCase) -> None:
        """Click twice, submit the mask, and ask for the next sample."""
        await self.click(case, "first click")
        mask = await self.click(case, "next click")
        if mask is None:
            return
        info = json.dumps({"label_info": [{"name": "tumor", "idx": 1}], "client_id": self._name})
        await self._timed(
            "submit",
            self._client.put(
                "/datastore/label",
                params={"image": case.image},
                files={"label": ("label.nrrd", mask)},
                data={"params": info},
            ),
        )
        await self._timed("next sample", self._client.post("/activelearning/first", json={"client_id": self._name}))

    async def click(self, case: LoadCase, kind: str) -> bytes | None:
        """Send a click inside, and for the next click one outside as well; the bytes of the mask."""
        outside = [] if kind == "first click" else [case.outside]
        params = {"foreground": [case.inside], "background": outside, "result_extension": ".nrrd"}
        query = {"image": case.image, "output": "image"}
        data = {"params": json.dumps({**params, "client_id": self._name})}
        answer = await self._timed(kind, self._client.post("/infer/sam3d", params=query, data=data))
        if answer is None:
            return None
        self._log.masks[case.image, kind] = hashlib.blake2b(answer.content, digest_size=16).hexdigest()
        return answer.content

    async def _timed(self, kind: str, request: Coroutine[Any, Any, httpx.Response]) -> httpx.Response | None:
        began = time.monotonic()
        try:
            answer = await request
        except httpx.HTTPError as error:
            self._log.errors.append(f"{kind}: {type(error).__name__}")
            return None
        if answer.status_code != 200:
            self._log.errors.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
            return None
        self._log.seconds[kind].append(time.monotonic() - began)
        return answer


async def work(client: httpx.AsyncClient, cases: Sequence[LoadCase], users: int) -> Log:
    """Let users label cases, each one the next case as soon as they are done with one, while `/info/` is asked for."""
    log, left = Log(), list(reversed(cases))

    async def annotate(number: int) -> None:
        annotator = Annotator(client, f"user-{number}", log)
        while left:
            await annotator.label(left.pop())

    async with _asking_for_info(client, log):
        await asyncio.gather(*(annotate(number) for number in range(users)))
    return log


@asynccontextmanager
async def _asking_for_info(client: httpx.AsyncClient, log: Log) -> Any:
    async def ask() -> None:
        while True:
            began = time.monotonic()
            answer = await client.get("/info/")
            log.seconds["info"].append(time.monotonic() - began)
            if answer.status_code != 200:
                log.errors.append(f"info: {answer.status_code}")
            await asyncio.sleep(THINK_INFO)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()
        for result in await asyncio.gather(asking, return_exceptions=True):
            if isinstance(result, Exception):
                log.errors.append(f"info: {type(result).__name__}")


async def click_only(client: httpx.AsyncClient, cases: Sequence[LoadCase], users: int, requests: int) -> Log:
    """Let users send clicks in turns over the cases, each one at another place outside."""
    log, left = Log(), iter(range(requests))

    async def clicking(number: int) -> None:
        annotator = Annotator(client, f"user-{number}", log)
        for turn in left:
            case = cases[turn % len(cases)]
            moved = LoadCase(case.image, case.inside, (turn % 8, (turn // 8) % 8, (turn // 64) % 8))
            await annotator.click(moved, "next click")

    await asyncio.gather(*(clicking(number) for number in range(users)))
    log.masks.clear()
    return log


async def masks_of_one_user(client: httpx.AsyncClient, cases: Sequence[LoadCase]) -> Log:
    """Send both clicks in every case, one after the other."""
    log = Log()
    for case in cases:
        for kind in ("first click", "next click"):
            await Annotator(client, "alone", log).click(case, kind)
    return log


def different(log: Log, alone: Log) -> list[str]:
    """Return images and clicks whose mask differs from that of a single user."""
    return [f"{image}, {kind}" for (image, kind), mask in log.masks.items() if alone.masks.get((image, kind)) != mask]


def write_cases(folder: Path, names: Sequence[str], shape: tuple[int, int, int]) -> list[LoadCase]:
    """Write noisy volumes with one bright ball each, every one another."""
    cases = []
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        centre = [int(rng.integers(side // 3, 2 * side // 3 + 1)) for side in shape]
        array = rng.normal(100, 15, shape).astype(np.float32)
        distance = np.linalg.norm(np.indices(shape).T - centre, axis=-1).T
        array[distance < min(shape) / 6] += 120
        nib.save(nib.Nifti1Image(array.astype(np.int16), np.eye(4)), folder / f"{name}.nii.gz")
        cases.append(LoadCase(name, (centre[0], centre[1], centre[2]), (1, 1, 1)))
    return cases


class Memory:
    """Looks at the memory of the processes that this one has started.

    Attributes:
        server_mb: Most that a server alone has used since `reset`.
        all_mb: Most that all processes have used.
        now_mb: What the server uses now.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset the measurements."""
        self.server_mb = self.all_mb = self.now_mb = 0.0

    @contextmanager
    def watched(self) -> Iterator[Memory]:
        """Look until the block ends."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(POLL_SECONDS):
                self._look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()

    def _look(self) -> None:
        def used(process: psutil.Process) -> float:
            try:
                return float(process.memory_info().rss) / MIB
            except psutil.Error:
                return 0.0

        me = psutil.Process()
        self.now_mb = max(map(used, me.children()), default=0.0)
        self.server_mb = max(self.server_mb, self.now_mb)
        self.all_mb = max(self.all_mb, sum(map(used, me.children(recursive=True))))


def row(name: str, log: Log, memory: Memory) -> str:
    """Return one line of the table."""
    summary = log.summary()
    cells = [f"{s['p50']:.2f} / {s['p95']:.2f}" if (s := summary.get(kind)) else "" for kind in KINDS]
    return f"| {name} | {' | '.join(cells)} | {len(log.errors)} | {memory.server_mb:.0f} |"


def _connect(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits)


def _run(
    url: str,
    job: Callable[Concatenate[httpx.AsyncClient, Parameters], Awaitable[Result]],
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """Return the result of a job, which gets a client of the server and the other arguments."""

    async def connected() -> Result:
        async with _connect(url) as client:
            return await job(client, *args, **kwargs)

    return asyncio.run(connected())


async def _until_training(client: httpx.AsyncClient) -> None:
    (await client.post("/train/sam3d", json={"max_epochs": 1000})).raise_for_status()
    deadline = time.monotonic() + PATIENCE
    while not (await client.get("/info/")).json().get("train_stats", {}).get("sam3d", {}).get("epoch"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the training had no first epoch within {PATIENCE:.0f} s")
        await asyncio.sleep(1)


def main(
    users: Annotated[str, typer.Option(help="Numbers of annotators, separated by commas.")] = "1,4,16,64",
    volumes: Annotated[int, typer.Option(min=1, help="Volumes for few annotators; each has at least one.")] = 4,
    shape: Annotated[str, typer.Option(help="Voxels of a volume along each axis.")] = "48,48,32",
    training: Annotated[int, typer.Option(min=0, help="Annotators who click while a training runs.")] = 0,
    requests: Annotated[int, typer.Option(min=0, help="Clicks over which memory must not grow.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers here too.")] = None,
) -> None:
    """Start the server, let annotators work, print a table; status 1 if a mask differs or a request fails."""
    os.environ["MONAI_LABEL_AUTO_UPDATE_SCORING"] = "false"  # it would compete with the clicks
    levels = [(f"{n} annotators", int(n)) for n in users.split(",") if n.strip()]
    if training:
        levels.append((f"{training}, training", training))
    i, j, k = (int(side) for side in shape.split(","))
    numbers: dict[str, Any] = {"shape": [i, j, k], "levels": {}}
    logs: list[Log] = []
    memory = Memory()
    with tempfile.TemporaryDirectory() as folder, memory.watched():
        names = [f"{place}-{n:03d}" for place, (_, count) in enumerate(levels) for n in range(max(count, volumes))]
        cases = write_cases(Path(folder), names, (i, j, k))
        print(f"| | {' | '.join(KINDS)} | errors | server, MiB |\n|{'---|' * (len(KINDS) + 3)}", flush=True)
        with server(Path(folder)) as started:
            url = started.url
            left = list(cases)
            for name, count in levels:
                mine, left = left[: max(count, volumes)], left[max(count, volumes) :]
                if "training" in name:
                    _run(url, _until_training)
                memory.reset()
                log = _run(url, work, mine, count)
                logs.append(log)
                print(row(name, log, memory), flush=True)
                peaks = {"server_mb": round(memory.server_mb), "all_mb": round(memory.all_mb)}
                numbers["levels"][name] = {"seconds": log.summary(), "errors": log.errors, **peaks}
            if training:
                _run(url, lambda client: client.delete("/train/"))
            if requests:
                grown = _grown(url, cases[:4], requests, memory, logs)
                numbers["memory_mb"] = grown
                print(f"\nMemory of the server over {requests} clicks, MiB: {grown}", flush=True)
        with server(Path(folder)) as started:
            alone = _run(started.url, masks_of_one_user, cases)
    wrong = [name for log in logs for name in different(log, alone)]
    errors = [error for log in (*logs, alone) for error in log.errors]
    compared = sum(len(log.masks) for log in logs)
    print(f"\n{compared} masks, {len(wrong)} differ from those of one user alone; {len(errors)} errors")
    numbers |= {"masks": compared, "different": wrong, "errors": len(errors)}
    if json_file:
        write_json(json_file, numbers)
    for problem in [*wrong, *errors][:10]:
        print(problem)
    raise typer.Exit(1 if wrong or errors else 0)


def _grown(url: str, cases: Sequence[LoadCase], requests: int, memory: Memory, logs: list[Log]) -> list[int]:
    """Return the memory of the server after each tenth of the clicks, MiB."""
    parts = []
    for part in range(10):
        count = requests * (part + 1) // 10 - requests * part // 10
        logs.append(_run(url, click_only, cases, 4, count))
        parts.append(round(memory.now_mb))
    return parts


if __name__ == "__main__":
    typer.run(main)
