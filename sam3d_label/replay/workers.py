"""Run the jobs of this process, in it or in workers, and merge the results of all processes."""

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
from sam3d_label.replay.folder import ReplayFolder, ReplaySettings
from sam3d_label.replay.jobs import ReplayJob, Shard, jobs_of_shard, split_log
from sam3d_label.replay.request import ReplayData, Replayer, only_label
from sam3d_label.replay.summary import Conditions, ReplayedWeights, ReplaySummary, WeightsIdentity
from sam3d_label.studies.folder import Studies
from sam3d_label.weights import open_weights

Show = Callable[[str, int, int], None]


@dataclass(frozen=True)
class WorkerInput:
    """The settings of a worker.

    Attributes:
        weights: Name or path; None for the shipped default.
        device: Where the network runs.
        data: Images, labels and original versions.
        out: Folder of the replay.
        threads: Of the network on the CPU; None for as many as torch takes.
    """

    weights: str | None
    device: str
    data: ReplayData
    out: Path
    threads: int | None = None


@dataclass(frozen=True)
class ReplayResult:
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
    work: WorkerInput,
    *,
    workers: int = 1,
    shard: Shard | None = None,
    command: str | None = None,
    progress: Show,
    overwrite: bool = False,
) -> ReplayResult:
    """Replay a log, or a share of it, and write table and summary of the results so far.

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
    Studies(work.data.studies).read()  # errors are reported before anything is written
    opened = open_weights(work.weights, work.device if workers == 1 else "cpu")
    folder = ReplayFolder(work.out)
    settings = ReplaySettings(
        weights=WeightsIdentity(version=opened.version, signature=opened.signature),
        tag=work.data.tag,
        labels=work.data.labels,
        compares_with_served=work.data.model_dir is not None,
    )
    requests, newer = folder.begin(log, settings, overwrite=overwrite)
    work = replace(work, data=replace(work.data, labels=work.data.labels or only_label(requests)))
    mine = jobs_of_shard(split_log(requests), shard or Shard())
    left = _remaining(mine, folder)
    count = sum(len(job.requests) for job in mine)
    done = count - sum(len(job.requests) for job in left)
    if workers == 1:
        finished = _run_here(left, Replayer(opened, work.data), folder)
    else:
        del opened
        finished = _run_workers(left, work, workers)
    for image, number in finished:
        done += number
        progress(image, done, count)
    weights = ReplayedWeights(**settings.weights.model_dump(), name=work.weights)
    conditions = Conditions(weights=weights, tag=work.data.tag, command=command)
    return ReplayResult(folder.merge(len(requests), conditions), count, newer)


def _remaining(mine: Sequence[ReplayJob], folder: ReplayFolder) -> list[ReplayJob]:
    """Return the jobs with their remaining requests."""
    known = folder.rows().keys()
    rest = [replace(job, requests=tuple(one for one in job.requests if one.number not in known)) for job in mine]
    return [job for job in rest if job.requests]


def _run_here(left: Sequence[ReplayJob], replayer: Replayer, folder: ReplayFolder) -> Iterator[tuple[str, int]]:
    with folder.open_rows() as add:
        for job in left:
            for row in replayer.rows(job):
                add(row)
                yield str(job.image), 1


def _run_workers(left: Sequence[ReplayJob], work: WorkerInput, workers: int) -> Iterator[tuple[str, int]]:
    """Yield image and number of requests of each job that a worker has ended."""
    work = replace(work, threads=max(1, _cores() // workers))
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, _start_worker, (work,)) as pool:
        try:
            pending = {pool.submit(_run_job, job): job for job in left}
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
    folder: ReplayFolder


def _start_worker(work: WorkerInput) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), daemon=True).start()
    if work.threads:
        torch.set_num_threads(work.threads)
    _Worker.replayer = Replayer(open_weights(work.weights, work.device), work.data)
    _Worker.folder = ReplayFolder(work.out)


def _exit_with_parent(sentinel: int) -> None:
    """End this process when the one that started it is gone, such as after a kill."""
    connection.wait([sentinel])
    os._exit(1)


def _run_job(job: ReplayJob) -> None:
    with _Worker.folder.open_rows() as add:
        for row in _Worker.replayer.rows(job):
            add(row)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
