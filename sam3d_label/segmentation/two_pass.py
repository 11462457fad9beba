"""Two passes for one set of prompts: the mask of the initial prompt, then all prompts as corrections of that mask.

Clicks that correct a mask are off the target's middle, often at its border, and a network that sees them all at once
cannot distinguish them from the click that meant the whole. So the first pass decodes the boxes or, without any, the
first positive click only, and its mask is an input of the second pass with all prompts. A further click then does not
change the initial mask; the order of the corrections does not matter, and nothing is stored between requests.
"""

from __future__ import annotations

import torch

from sam3d_label.segmentation.crop_prompts import CropPrompts


def initial_clicks(prompts: CropPrompts) -> slice | None:
    """Return which clicks the first pass decodes, together with all boxes; None when one pass does.

    One pass is enough for a single click and for boxes without clicks. With boxes, or with negative clicks only, the
    first pass decodes no click.
    """
    clicks = prompts.points.shape[1]
    if prompts.boxes.shape[1]:
        return slice(0, 0) if clicks else None
    if clicks < 2:
        return None
    inside = torch.nonzero(prompts.signs[0] == 1)[:, 0].tolist()
    return slice(inside[0], inside[0] + 1) if inside else slice(0, 0)
