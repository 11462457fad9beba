"""The comparison of trainings in one and in several processes."""

from __future__ import annotations

import copy

import torch
from processes import difference

from sam3d_label.weights import Weights


def test_the_largest_difference_of_a_weight_is_found(small_weights: Weights) -> None:
    other = copy.deepcopy(small_weights.model)
    assert difference(small_weights.model, other) == 0
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 0.5
    assert abs(difference(small_weights.model, other) - 0.5) < 1e-5
