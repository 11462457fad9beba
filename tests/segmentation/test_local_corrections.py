"""Corrections change the mask next to their click, not elsewhere."""

from __future__ import annotations

import torch

from sam3d_label.segmentation.crop_prompts import CropPrompts
from sam3d_label.segmentation.local_corrections import keep_local

SIZE = 24


def prompts(*clicks: tuple[tuple[int, int, int], int]) -> CropPrompts:
    points = torch.tensor([[at for at, _ in clicks]], dtype=torch.float32).reshape(1, -1, 3)
    signs = torch.tensor([[sign for _, sign in clicks]], dtype=torch.long).reshape(1, -1)
    return CropPrompts(points, signs, torch.zeros(1, 0, 2, 3))


def slab(first: int, last: int) -> torch.Tensor:
    """Return the logit of a target from one depth to another."""
    logit = torch.full((1, 1, SIZE, SIZE, SIZE), -2.0)
    logit[:, :, first:last] = 3.0
    return logit


def depths(logit: torch.Tensor) -> list[int]:
    return torch.nonzero((logit[0, 0] > 0).all(2).all(1))[:, 0].tolist()


MIDDLE = ((10, 12, 12), 1)


def test_a_click_outside_removes_only_what_is_nearer_to_it_than_to_the_target():
    corrected = keep_local(slab(7, 12), slab(4, 16), prompts(MIDDLE, ((17, 12, 12), 0)))
    assert 15 not in depths(corrected), "the part at the click is gone"
    assert {4, 5, 6} <= set(depths(corrected)), "the other end stays"


def test_a_click_inside_adds_only_what_is_nearer_to_it_than_to_a_click_outside():
    corrected = keep_local(slab(1, 22), slab(8, 14), prompts(MIDDLE, ((16, 12, 12), 1), ((3, 12, 12), 0)))
    assert {16, 17, 20} <= set(depths(corrected))
    assert not {1, 2, 3, 4} & set(depths(corrected))


def test_values_are_those_of_one_of_the_two_logits_with_their_sign():
    joint, initial = slab(7, 12) + 0.5, slab(4, 16)
    corrected = keep_local(joint, initial, prompts(MIDDLE, ((17, 12, 12), 0)))
    assert ((corrected == joint) | (corrected == initial)).all()
    unchanged = (joint > 0) == (initial > 0)
    assert torch.equal(corrected[unchanged], joint[unchanged])


def test_without_a_click_or_a_change_the_logit_stays():
    assert torch.equal(keep_local(slab(4, 16), slab(7, 12), prompts()), slab(4, 16))
    assert torch.equal(keep_local(slab(4, 16), slab(4, 16), prompts(MIDDLE)), slab(4, 16))
