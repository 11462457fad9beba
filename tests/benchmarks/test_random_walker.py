"""The random walker, on a bright ball."""

from __future__ import annotations

import numpy as np
import pytest
import random_walker

from sam3d_label.errors import PromptError
from sam3d_label.image.volume import Volume
from sam3d_label.masks import dice
from sam3d_label.segmentation.prompts import Click

SPACING = np.array([2.0, 1.5, 3.0])
BALL, OTHER = (20, 30, 14), (38, 30, 14)


def ball(shape, centre, radius):
    away = (np.moveaxis(np.indices(shape), 0, -1) - centre) * SPACING
    return (away**2).sum(-1) <= radius**2


@pytest.fixture
def walker():
    """A volume with two bright balls, stored with flipped and swapped axes, under the walker."""
    shape = (56, 60, 28)
    image = np.random.default_rng(0).normal(scale=5, size=shape)
    for centre in (BALL, OTHER):
        image[ball(shape, centre, 15)] += 100
    affine = np.zeros((4, 4))
    affine[0, 1], affine[1, 0], affine[2, 2], affine[3, 3] = -SPACING[1], SPACING[0], SPACING[2], 1
    return random_walker.RandomWalker(Volume(image.astype(np.float32), affine))


def test_one_click_gives_its_ball(walker):
    shape = walker.volume.shape
    answer = walker.segment([Click(BALL)])
    assert answer.mask.dtype == np.uint8
    assert answer.mask.shape == shape
    assert dice(answer.mask > 0, ball(shape, BALL, 15)) > 0.85
    assert not answer.mask[OTHER]


def test_clicks_say_what_belongs(walker):
    both = walker.segment([Click(BALL), Click(OTHER)]).mask
    assert both[BALL]
    assert both[OTHER]
    one = walker.segment([Click(BALL), Click(OTHER, positive=False)]).mask
    assert one[BALL]
    assert not one[OTHER]


def test_a_region_smaller_than_the_volume(walker, monkeypatch):
    monkeypatch.setattr(random_walker, "FIELD_MM", 60.0)
    shape = walker.volume.shape
    mask = walker.segment([Click(BALL)]).mask
    assert dice(mask > 0, ball(shape, BALL, 15)) > 0.85


@pytest.mark.parametrize("corner", [(0, 0, 0), (55, 59, 27)])
def test_a_click_in_a_corner(walker, corner):
    assert walker.segment([Click(corner)]).mask.shape == walker.volume.shape


def test_clicks_must_fit(walker):
    with pytest.raises(PromptError, match="outside the volume"):
        walker.segment([Click((99, 0, 0))])
    with pytest.raises(PromptError, match="at least one click inside"):
        walker.segment([Click(BALL, positive=False)])
