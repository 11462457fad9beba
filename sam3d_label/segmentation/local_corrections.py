"""Corrections that hold where they were clicked.

The decoder sees all clicks at once, and one that corrects a border can change the mask elsewhere. A voxel is therefore
added to the initial mask only where the nearest click is inside, and removed only where it is outside.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sam3d_label.segmentation.crop_prompts import CropPrompts


def keep_local(logit: Tensor, initial: Tensor, prompts: CropPrompts) -> Tensor:
    """Return a corrected logit without the changes of the initial mask that no click asks for.

    Args:
        logit: Logit under all prompts, (1, 1, D, H, W).
        initial: Logit of the initial prompt, of the same shape.
        prompts: All prompts.

    Returns:
        The corrected logit, (1, 1, D, H, W), and the initial one where the sign changed and the nearest click has
        the other sign.
    """
    if not prompts.points.shape[1]:
        return logit
    changed = torch.nonzero((logit[0, 0] > 0) != (initial[0, 0] > 0))
    nearest = torch.cdist(changed.to(prompts.points), prompts.points[0]).argmin(1)
    added = logit[0, 0][changed.unbind(1)] > 0
    undone = changed[added != (prompts.signs[0][nearest] == 1)].unbind(1)
    kept = logit.clone()
    kept[0, 0][undone] = initial[0, 0][undone].to(kept.dtype)
    return kept
