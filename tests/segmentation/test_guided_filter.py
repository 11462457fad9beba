"""Borders follow the image, where it has any."""

from __future__ import annotations

import numpy as np
import torch

from sam3d_label.masks import dice
from sam3d_label.network.box_mean import box_mean
from sam3d_label.segmentation.guided_filter import box_around, follow_edges, guided_logit, thickness

SIZE = 48


def ball(radius: float) -> torch.Tensor:
    away = torch.stack(torch.meshgrid(*[torch.arange(SIZE) - SIZE / 2] * 3, indexing="ij")).norm(dim=0)
    return (radius - away).clamp(-4, 4)


def test_windows_are_means_of_what_lies_near_and_inside():
    values = torch.rand(20, 20, 20)
    found = box_mean(values, 4)
    near = values[1:10, :5, 15:]
    assert torch.isclose(found[5, 0, 19], near.mean(), atol=1e-5)


def test_a_mask_next_to_the_edge_moves_to_it():
    truth = ball(14) > 0
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.2, (SIZE,) * 3)).float()
    image = truth + noise
    for radius in (13, 15, 16):
        guessed = ball(radius)
        before, after = (dice((logit > 0).numpy(), truth.numpy()) for logit in (guessed, follow_edges(guessed, image)))
        assert after > before + 0.05


def test_where_the_image_is_flat_the_border_hardly_moves():
    for value in (0.0, 3.0):
        found = follow_edges(ball(18), torch.full((SIZE,) * 3, value))
        assert torch.isfinite(found).all()
        assert ((found > 0) >= (ball(16) > 0)).all()
        assert ((found > 0) <= (ball(18) > 0)).all()


def test_a_thin_sheet_in_a_flat_image_stays():
    sheet = torch.full((SIZE,) * 3, -4.0)
    sheet[20:24, 8:40, 8:40] = 4.0
    assert thickness(sheet > 0) == 4
    found = follow_edges(sheet, torch.zeros((SIZE,) * 3))
    assert dice((found > 0).numpy(), (sheet > 0).numpy()) > 0.9


def test_without_a_mask_nothing_changes():
    nothing = torch.full((SIZE,) * 3, -4.0)
    assert thickness(nothing > 0) == 0
    assert torch.equal(follow_edges(nothing, torch.rand((SIZE,) * 3)), nothing)


def test_the_mask_is_that_of_the_whole_crop_although_only_its_surroundings_are_computed():
    image = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (SIZE,) * 3)).float() + (ball(9) > 0)
    logit = ball(8).roll((12, -5, 3), (0, 1, 2))
    radius = round(thickness(logit > 0) / 4)
    near = box_around(logit > 0, radius)
    found, everywhere = follow_edges(logit, image), guided_logit(logit, image, radius)
    assert torch.allclose(found[near], everywhere[near], atol=1e-4)
    assert torch.equal(found > 0, everywhere > 0)
    assert torch.equal(found[:2], logit[:2])
