"""Precision in which masks are computed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sam3d_label.errors import Sam3dError

if TYPE_CHECKING:
    import torch

PRECISION = "SAM3D_PRECISION"
"""Environment variable with the precision of masks: bf16, fp32, or auto for bf16 where the device computes in it."""

CHOICES = ("auto", "bf16", "fp32")


def chosen_precision() -> str:
    """Return the value of `PRECISION`; without it, auto.

    Raises:
        Sam3dError: It is none of `CHOICES`.
    """
    chosen = os.environ.get(PRECISION) or CHOICES[0]
    if chosen not in CHOICES:
        raise Sam3dError(f"the environment variable {PRECISION} is {chosen!r}: it must be one of {', '.join(CHOICES)}")
    return chosen


def mask_precision(device: torch.device) -> torch.autocast:
    """Return a context in which networks compute masks in `chosen_precision`; errors as there."""
    import torch  # checking the variable does not need it

    from sam3d_label.network.precision import computes_bf16

    chosen = chosen_precision()
    enabled = chosen == "bf16" or (chosen == "auto" and computes_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
