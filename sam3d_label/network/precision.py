"""Precision of a device's arithmetic."""

from __future__ import annotations

from functools import cache

import torch


@cache
def computes_bf16(device: torch.device) -> bool:
    """Return whether a device has bf16 arithmetic; a processor without it takes many times as long as in fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16"))
