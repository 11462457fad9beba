"""Pictures of a training run."""

from __future__ import annotations

import math

import pytest
from matplotlib.image import imread

from sam3d_label.training.log import EpochLog, plot_log


def log_of(number: int, dice: float) -> EpochLog:
    return EpochLog(epoch=number, loss=1 / (number + 1), dice_1=dice, dice_3=dice, learning_rate=1e-3, seconds=2)


def logs(*dices: float) -> list[EpochLog]:
    return [log_of(number, dice) for number, dice in enumerate(dices)]


@pytest.mark.parametrize("dices", [(0.5, 0.6, 0.7), (math.nan, 0.6, math.nan), (math.nan, math.nan), (0.4,)])
def test_a_picture_shows_what_there_is(tmp_path, dices):
    plot_log(logs(*dices), tmp_path / "curves.png")
    picture = imread(tmp_path / "curves.png", format="png")
    assert picture.shape[:2] == (660, 1500)
    assert picture[..., :3].std() > 0.01


def test_more_epochs_make_another_picture(tmp_path):
    for number in (2, 3):
        plot_log(logs(*[0.5] * number), tmp_path / f"{number}.png")
    assert (imread(tmp_path / "2.png") != imread(tmp_path / "3.png")).any()
