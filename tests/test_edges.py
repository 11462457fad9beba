"""Borders follow the image, where it has any."""

from __future__ import annotations

import numpy as np
import torch

from sam3d_label.edges import RADIUS, follow_edges, windows
from sam3d_label.evaluation.metrics import dice

SIZE = 48


def ball(radius: float) -> torch.Tensor:
    away = torch.stack(torch.meshgrid(*[torch.arange(SIZE) - SIZE / 2] * 3, indexing="ij")).norm(dim=0)
    return (radius - away).clamp(-4, 4)


def test_windows_are_means_of_what_lies_near_and_inside():
    values = torch.rand(20, 20, 20)
    found = windows(values)
    near = values[max(0, 5 - RADIUS) : 6 + RADIUS, : RADIUS + 1, 19 - RADIUS :]
    assert torch.isclose(found[5, 0, 19], near.mean(), atol=1e-5)


def test_a_mask_beside_the_edge_moves_to_it():
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
