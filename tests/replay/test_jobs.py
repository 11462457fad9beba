"""Who replays what: every request once, shares alike, and where a share is told."""

from __future__ import annotations

import pytest

from sam3d_label.errors import Sam3dError
from sam3d_label.replay.jobs import JOB, Shard, find_shard, jobs_of_shard, split_log
from sam3d_label.studies.click_log import LoggedRequest

REQUESTS = [LoggedRequest(at="now", image=image, seconds=1) for image in ["a"] * 70 + ["b", "c", None] * 9 + ["a"]]
ARRAY = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_STEP": "1", "SLURM_ARRAY_TASK_COUNT": "4"}


def numbers(some_jobs):
    return [one.number for job in some_jobs for one in job.requests]


def test_a_job_is_on_one_image_in_the_order_of_the_log():
    for job in split_log(REQUESTS):
        assert {one.request.image for one in job.requests} == {job.image}
        assert [one.number for one in job.requests] == sorted(one.number for one in job.requests)
        assert len(job.requests) <= JOB


@pytest.mark.parametrize("of", [1, 2, 3, 50])
def test_shares_make_the_whole_and_are_alike(of):
    shares = [jobs_of_shard(split_log(REQUESTS), Shard(number, of)) for number in range(1, of + 1)]
    assert sorted(number for mine in shares for number in numbers(mine)) == list(range(1, len(REQUESTS) + 1))
    if of < 4:
        sizes = [len(numbers(mine)) for mine in shares]
        assert max(sizes) - min(sizes) <= JOB
    assert shares[-1] == jobs_of_shard(split_log(REQUESTS), Shard(of, of))


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (None, {}, (1, 1)),
        ("2/8", {}, (2, 8)),
        ("2/8", {"RANK": "0", "WORLD_SIZE": "2"}, (2, 8)),
        (None, {"RANK": "0", "WORLD_SIZE": "1"}, (1, 1)),
        (None, {"RANK": "1", "WORLD_SIZE": "2"}, (2, 2)),
        (None, {**ARRAY, "SLURM_ARRAY_TASK_ID": "0"}, (1, 4)),
        (None, {**ARRAY, "SLURM_ARRAY_TASK_ID": "3"}, (4, 4)),
        (
            None,
            {**ARRAY, "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2"},
            (4, 4),
        ),
    ],
)
def test_a_share_is_found(given, environment, expected):
    found = find_shard(given, environment)
    assert (found.number, found.of) == expected


@pytest.mark.parametrize("given", ["0/2", "3/2", "2", "1/0", "a/b", "-1/2"])
def test_a_share_that_cannot_be_is_refused(given):
    with pytest.raises(Sam3dError, match="give i/n with i from 1 to n"):
        find_shard(given, {})


def test_an_array_with_gaps_is_refused():
    with pytest.raises(Sam3dError, match="without gaps"):
        find_shard(None, {**ARRAY, "SLURM_ARRAY_TASK_ID": "9"})
