"""One prompt opens, all correct."""

import torch

from sam3d_label.segmentation.two_pass import opening


class Recorder:
    """Stands for a network: its answer is the first coordinate of a single click."""

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


def test_the_first_click_inside_opens_whatever_the_order_of_the_others():
    (one, other), asked = opened(prompts([(9, 0), (4, 1), (1, 1), (2, 1)]), prompts([(4, 1), (2, 1), (9, 0), (1, 1)]))
    assert one.flatten()[0] == other.flatten()[0] == 4
    assert asked == [(1, 0)], "it is decoded once"


def test_boxes_open_before_clicks():
    (answer,), asked = opened(prompts([(4, 1), (9, 0)], boxes=1))
    assert answer is not None
    assert asked == [(0, 1)]


def test_clicks_outside_alone_correct_what_is_found_unasked():
    (answer,), asked = opened(prompts([(4, 0), (9, 0)]))
    assert answer is not None
    assert asked == [(0, 0)]
