"""The stages of the training benchmark."""

from __future__ import annotations

import time

import torch
from training import StageClock


def test_an_inner_stage_is_not_counted_for_the_outer_one() -> None:
    clock = StageClock(torch.device("cpu"))
    with clock.stage("outer"):
        time.sleep(0.02)
        clock.timed("inner", time.sleep)(0.2)
    assert clock.seconds["inner"] >= 0.2
    assert 0.02 <= clock.seconds["outer"] < 0.2


def test_a_stage_adds_up() -> None:
    clock = StageClock(torch.device("cpu"))
    for _ in range(3):
        clock.timed("wait", time.sleep)(0.01)
    assert clock.seconds["wait"] >= 0.03
