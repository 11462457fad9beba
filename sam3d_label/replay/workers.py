"""A replay: the jobs of this process, by itself or by workers, and what all processes found."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path

import torch

from sam3d_label.errors import Sam3dError
from sam3d_label.replay.folder import ReplaySettings, Store
from sam3d_label.replay.jobs import Job, Shard, jobs, share
from sam3d_label.replay.request import Cohort, Replayer, only_label
from sam3d_label.replay.summary import Conditions, ReplayedWeights, ReplaySummary, WeightsIdentity
from sam3d_label.studies.folder import Studies
from sam3d_label.weights import open_weights

Show = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Work:
    """The input of a worker.

    Attributes:
        weights: Name or path; None for the shipped default.
        device: Where the network runs.
        cohort: What requests are replayed on.
        out: Folder of the replay.
        threads: Of the network on the CPU; None for as many as torch takes.
    """

    weights: str | None
    device: str
    cohort: Cohort
    out: Path
    threads: int | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of a process, and the summary of all.

    Attributes:
        summary: Of all that is done, by whichever process.
        share: Requests of this process.
        newer: Requests that the log has got since the replay began.
    """

    summary: ReplaySummary
    share: int
    newer: int


def replay(
    log: Path,
    work: Work,
    *,
    workers: int = 1,
    shard: Shard | None = None,
    command: str | None = None,
    progress: Show,
    overwrite: bool = False,
) -> Outcome:
    """Replay a log, or a share of it, and write table and summary of what is done so far.

    Args:
        log: As of `read_log`.
        work: With what, on what and where to.
        workers: Processes on this machine.
        shard: The share of this process; without it, everything.
        command: The command line, for the summary.
        progress: Called with (image, requests done, requests of this process).
        overwrite: Whether to replace what another replay has left in the folder.

    Raises:
        Sam3dError: There is no log, the weights or the studies cannot be opened, the folder holds another replay, or
            a worker was lost.
        OSError: The folder cannot be written.
    """
    Studies(work.cohort.studies).read()  # errors are reported before anything is written
    opened = open_weights(work.weights, work.device if workers == 1 else "cpu")
    store = Store(work.out)
    settings = ReplaySettings(
        weights=WeightsIdentity(version=opened.version, signature=opened.signature),
        tag=work.cohort.tag,
        labels=work.cohort.labels,
        compares_with_served=work.cohort.model_dir is not None,
    )
    requests, newer = store.begin(log, settings, overwrite=overwrite)
    work = replace(work, cohort=replace(work.cohort, labels=work.cohort.labels or only_label(requests)))
    mine = share(jobs(requests), shard or Shard())
    left = _left(mine, store)
    count = sum(len(job.requests) for job in mine)
    done = count - sum(len(job.requests) for job in left)
    if workers == 1:
        finished = _alone(left, Replayer(opened, work.cohort), store)
    else:
        del opened
        finished = _together(left, work, workers)
    for image, number in finished:
        done += number
        progress(image, done, count)
    weights = ReplayedWeights(**settings.weights.model_dump(), name=work.weights)
    conditions = Conditions(weights=weights, tag=work.cohort.tag, command=command)
    return Outcome(store.merge(len(requests), conditions), count, newer)


def _left(mine: Sequence[Job], store: Store) -> list[Job]:
    """Jobs with what is not done yet."""
    known = store.rows().keys()
    rest = [replace(job, requests=tuple(one for one in job.requests if one.number not in known)) for job in mine]
    return [job for job in rest if job.requests]


def _alone(left: Sequence[Job], replayer: Replayer, store: Store) -> Iterator[tuple[str, int]]:
    with store.adding() as add:
        for job in left:
            for row in replayer.rows(job):
                add(row)
                yield str(job.image), 1


def _together(left: Sequence[Job], work: Work, workers: int) -> Iterator[tuple[str, int]]:
    """Yield image and number of requests of each job that a worker has ended."""
    work = replace(work, threads=max(1, _cores() // workers))
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, _begin, (work,)) as pool:
        try:
            pending = {pool.submit(_do, job): job for job in left}
            for future in as_completed(pending):
                future.result()
                job = pending[future]
                yield str(job.image), len(job.requests)
        except BrokenProcessPool:
            raise Sam3dError(
                "a worker was lost, perhaps for lack of memory: finished work is kept, so run the same command again,"
                " with fewer --workers if it happens again"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """The state of a worker between jobs."""

    replayer: Replayer
    store: Store


def _begin(work: Work) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    if work.threads:
        torch.set_num_threads(work.threads)
    _Worker.replayer = Replayer(open_weights(work.weights, work.device), work.cohort)
    _Worker.store = Store(work.out)


def _end_with(sentinel: int) -> None:
    """End this process when the one that started it is gone, such as after a kill."""
    connection.wait([sentinel])
    os._exit(1)


def _do(job: Job) -> None:
    with _Worker.store.adding() as add:
        for row in _Worker.replayer.rows(job):
            add(row)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
