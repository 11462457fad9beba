"""The first pass decodes the initial prompt, the second all of them."""

import torch

from sam3d_label.segmentation.crop_prompts import CropPrompts
from sam3d_label.segmentation.two_pass import initial_clicks


def prompts(*signs, boxes=0) -> CropPrompts:
    points, sign = torch.zeros(1, len(signs), 3), torch.tensor([signs], dtype=torch.long)
    return CropPrompts(points, sign.reshape(1, -1), torch.zeros(1, boxes, 2, 3))


def test_one_pass_does_for_a_single_prompt():
    assert initial_clicks(prompts(1)) is None
    assert initial_clicks(prompts()) is None
    assert initial_clicks(prompts(boxes=2)) is None


def test_the_first_click_inside_is_the_initial_one_whatever_comes_before_it():
    assert initial_clicks(prompts(1, 1, 0)) == slice(0, 1)
    assert initial_clicks(prompts(0, 1, 1)) == slice(1, 2)


def test_boxes_are_decoded_first_without_any_click():
    assert initial_clicks(prompts(1, 0, boxes=1)) == slice(0, 0)


def test_clicks_outside_alone_correct_the_mask_of_no_prompt():
    assert initial_clicks(prompts(0, 0)) == slice(0, 0)
