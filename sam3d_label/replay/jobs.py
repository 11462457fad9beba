"""Divide the requests of a log into small jobs, and the jobs among processes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from sam3d_label.errors import Sam3dError
from sam3d_label.studies.click_log import LoggedRequest

JOB = 32
"""Requests in a job at most: many enough to open an image once for them, few enough to share one image's work."""


@dataclass(frozen=True)
class NumberedRequest:
    """A request and its place in the log, from 1."""

    number: int
    request: LoggedRequest


@dataclass(frozen=True)
class ReplayJob:
    """Some requests on one image, in the order of the log."""

    image: str | None
    requests: tuple[NumberedRequest, ...]


@dataclass(frozen=True)
class Shard:
    """The share of one of several processes.

    Attributes:
        number: Which, from 1.
        of: How many there are.
        by: Source of the number; None when this process is the only one.
    """

    number: int = 1
    of: int = 1
    by: str | None = None


def split_log(requests: Sequence[LoggedRequest]) -> list[ReplayJob]:
    """Return all jobs of a log, those on one image next to each other."""
    by_image: dict[str | None, list[NumberedRequest]] = {}
    for number, request in enumerate(requests, start=1):
        by_image.setdefault(request.image, []).append(NumberedRequest(number, request))
    made = []
    for image, numbered in by_image.items():
        rest = iter(numbered)
        while part := tuple(islice(rest, JOB)):
            made.append(ReplayJob(image, part))
    return made


def jobs_of_shard(all_jobs: Sequence[ReplayJob], shard: Shard) -> list[ReplayJob]:
    """Return the jobs of one shard: about as many requests as any other's, the same whenever it is asked."""
    loads = [0] * shard.of
    mine = []
    for job in sorted(all_jobs, key=lambda job: (-len(job.requests), job.requests[0].number)):
        lightest = loads.index(min(loads))
        loads[lightest] += len(job.requests)
        if lightest == shard.number - 1:
            mine.append(job)
    return sorted(mine, key=lambda job: job.requests[0].number)


def find_shard(given: str | None, environment: Mapping[str, str]) -> Shard:
    """Return the share of this process.

    Args:
        given: What the user said, `i/n`; None when nothing.
        environment: Where torchrun (RANK, WORLD_SIZE) and SLURM's arrays (SLURM_ARRAY_TASK_…) say it else.

    Raises:
        Sam3dError: There is no such shard.
    """
    if given is not None:
        return _parse(given)
    if int(environment.get("WORLD_SIZE", "1")) > 1:
        return Shard(int(environment["RANK"]) + 1, int(environment["WORLD_SIZE"]), "RANK of WORLD_SIZE")
    if "SLURM_ARRAY_TASK_ID" in environment:
        return _slurm_shard({name: int(environment.get(f"SLURM_ARRAY_TASK_{name}", "1")) for name in SLURM})
    return Shard()


SLURM = ("ID", "MIN", "STEP", "COUNT")


def _parse(given: str) -> Shard:
    found = re.fullmatch(r"(\d+)/(\d+)", given)
    number, of = (int(text) for text in found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise Sam3dError(f"--shard {given}: give i/n with i from 1 to n, such as 2/8")
    return Shard(number, of, "--shard")


def _slurm_shard(task: Mapping[str, int]) -> Shard:
    number = (task["ID"] - task["MIN"]) // task["STEP"] + 1
    if not 1 <= number <= task["COUNT"]:
        raise Sam3dError("the tasks of this SLURM array are not numbered without gaps: give --shard i/n instead")
    return Shard(number, task["COUNT"], "the SLURM array")
