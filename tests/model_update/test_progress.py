"""The time that an update will take, from the steps that it has done."""

from __future__ import annotations

import pytest

from sam3d_label.model_update.progress import StepClock, UpdateProgress, WorkClock


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_steps_give_speed_and_time_left_including_the_trainings_that_follow() -> None:
    progress, clock = UpdateProgress("training", epochs_in_all=3), Clock()
    count = StepClock(progress, batch=2, following=1, clock=clock)
    count(0, 1, 10)
    assert (progress.steps, progress.steps_in_all) == (1, 30)
    assert progress.seconds_left is None
    clock.now += 4 * 5
    count(0, 5, 10)
    assert progress.crops_per_second == pytest.approx(2 / 5)
    assert progress.seconds_left == pytest.approx((25 + 30) * 5)
    clock.now += 5 * 8
    count(1, 3, 10)
    assert progress.steps == 13
    assert progress.seconds_left == pytest.approx((17 + 30) * 60 / 12)


def test_a_resumed_training_counts_its_own_steps_only() -> None:
    progress, clock = UpdateProgress("training", epochs_in_all=2), Clock()
    count = StepClock(progress, batch=1, following=0, clock=clock)
    count(1, 1, 10)
    clock.now += 3
    count(1, 2, 10)
    assert progress.crops_per_second == pytest.approx(1 / 3)
    assert progress.seconds_left == pytest.approx(8 * 3)


def test_a_work_clock_leaves_out_what_is_waited() -> None:
    clock = Clock()

    def pause() -> None:
        clock.now += 60

    work = WorkClock(pause, clock)
    began = work()
    clock.now += 2
    work.wait()
    clock.now += 3
    assert work() - began == 5
