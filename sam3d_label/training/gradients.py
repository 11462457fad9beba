"""Switch gradients of the encoder on or off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sam3d_label.network import PromptableNetwork


@contextmanager
def gradients_of_encoder(model: PromptableNetwork, wanted: bool) -> Iterator[None]:
    """Backpropagate into the encoder until the block ends, or not, which saves time and memory."""
    encoder = model.encoder()
    if wanted or encoder is None:
        yield
        return
    before: list[bool] = []

    def stop(*_: object) -> None:
        before.append(torch.is_grad_enabled())
        torch.set_grad_enabled(False)

    def resume(*_: object) -> None:
        torch.set_grad_enabled(before.pop())

    hooks = encoder.register_forward_pre_hook(stop), encoder.register_forward_hook(resume, always_call=True)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
