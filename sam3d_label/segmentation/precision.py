"""Precision in which masks are computed."""

from __future__ import annotations

import os

import torch

from sam3d_label.errors import Sam3dError
from sam3d_label.network.precision import computes_bf16

PRECISION = "SAM3D_PRECISION"
"""Environment variable with the precision of masks: bf16, fp32, or auto for bf16 where the device computes in it."""

CHOICES = ("auto", "bf16", "fp32")


def mask_precision(device: torch.device) -> torch.autocast:
    """Return a context in which networks compute masks in the precision that `PRECISION` asks for; without it, auto.

    Raises:
        Sam3dError: The variable has another value.
    """
    chosen = os.environ.get(PRECISION) or CHOICES[0]
    if chosen not in CHOICES:
        raise Sam3dError(f"${PRECISION} is {chosen!r}: it must be one of {', '.join(CHOICES)}")
    enabled = chosen == "bf16" or (chosen == "auto" and computes_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
