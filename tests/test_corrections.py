"""One prompt opens, all correct; in whatever order."""

import pytest
import torch

from sam3d_label.corrections import opening, sureness, surest


class Recorder:
    """Stands for a network: its answer is as sure as the first coordinate of a single click says."""

    def __init__(self):
        self.asked = []

    def decode(self, embedding, points, signs, *, boxes=None, mask=None):
        self.asked.append((points.shape[1], 0 if boxes is None else boxes.shape[1]))
        return torch.full((1, 1, 2, 2, 2), float(points[0, 0, 0]) if points.shape[1] else -5.0)


def prompts(clicks, boxes=0):
    points = torch.tensor([[float(at), 0, 0] for at, _ in clicks]).reshape(1, -1, 3)
    return points, torch.tensor([[sign for _, sign in clicks]]).reshape(1, -1), torch.zeros(1, boxes, 2, 3)


def opened(*asked):
    network, kept = Recorder(), {}

    def remember(click, make):
        if click not in kept:
            kept[click] = make()
        return kept[click]

    return [opening(network, None, each, remember) for each in asked], network.asked


def test_one_prompt_has_nothing_to_correct():
    answers, asked = opened(prompts([(3, 1)]), prompts([]), prompts([], boxes=2))
    assert answers == [None, None, None]
    assert asked == []


def test_the_surest_click_inside_opens_in_whatever_order():
    clicks = [(1, 1), (4, 1), (9, 0), (2, 1)]
    (one, other), asked = opened(prompts(clicks), prompts(clicks[::-1]))
    assert one.flatten()[0] == other.flatten()[0] == 4
    assert asked == [(1, 0)] * 3, "each click inside is decoded once, and those outside never alone"


def test_boxes_open_before_clicks():
    (answer,), asked = opened(prompts([(4, 1), (9, 0)], boxes=1))
    assert answer is not None
    assert asked == [(0, 1)]


def test_clicks_outside_alone_correct_what_is_found_unasked():
    (answer,), asked = opened(prompts([(4, 0), (9, 0)]))
    assert answer is not None
    assert asked == [(0, 0)]


def test_sureness_is_that_of_the_mask():
    empty, faint, sure = torch.full((8,), -9.0), torch.full((8,), 0.1), torch.full((8,), 4.0)
    assert sureness(empty) == 0 < sureness(faint) < sureness(sure)
    half = torch.cat([sure, empty])
    assert sureness(half) == pytest.approx(sureness(sure))
    assert surest([empty, sure, faint]) is sure
