"""Memory that a training step needs, found by running it with tensors that have sizes and no memory."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sam3d_label.network import PromptableNetwork
from sam3d_label.network.config import COSTS

SCRATCH = 6 * 10**8
"""Bytes that kernels and the allocator of a CPU need in addition to tensors, measured with `tiny` and `vit_b`."""

CLICKS = 8
"""Clicks of an estimated round."""


@dataclass(frozen=True)
class Need:
    """Memory of training a network in addition to its weights, bytes.

    Attributes:
        states: Gradients, AdamW's two moments and the running average.
        crop: What a step holds at its peak for each crop.
        scratch: What kernels and the allocator take.
    """

    states: int
    crop: int
    scratch: int = 0

    def of(self, at_once: int) -> int:
        """Return the bytes for a number of crops at once."""
        return self.states + self.scratch + at_once * self.crop


def need(model: PromptableNetwork, device: torch.device, *, bf16: bool, checkpointing: bool) -> Need:
    """Estimate the peak memory of training a network in addition to its weights.

    Args:
        model: The network, with `requires_grad` as in training.
        device: Where it trains.
        bf16: In bf16 autocast.
        checkpointing: The encoder recomputes its activations.
    """
    trains = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    place = (device.type, bf16, checkpointing)
    key = (type(model), model.config, tuple(p.requires_grad for p in model.parameters()), *place)
    if key not in _crop_bytes:
        _crop_bytes[key] = _peak_of_step(model, *place)
    return Need(4 * trains, _crop_bytes[key], SCRATCH if device.type == "cpu" else 0)


_crop_bytes: dict[object, int] = {}
"""Cached results, by network and device; they do not depend on the weights."""


def _peak_of_step(model: PromptableNetwork, device: str, bf16: bool, checkpointing: bool) -> int:
    """Return the peak of a step on one crop, bytes, found by a run on tensors without memory."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        fake = copy.deepcopy(model)
    with mode, torch.device(device), Held() as held:
        fake.train()
        fake.checkpoint_activations(checkpointing)
        run_step(fake, device, bf16)
    return held.peak


def run_step(model: PromptableNetwork, device: str, bf16: bool) -> None:
    """Run forward and backward passes of the decodings that learn, on one empty crop.

    Geodesic maps are left out: they take long to run, no gradient passes through them, and they need little memory.

    Args:
        model: The network.
        device: Type of the device.
        bf16: In bf16 autocast.
    """
    shape = (1, 1, *(model.config.crop,) * 3)
    crop, label = torch.empty(shape), torch.empty(shape)
    points, signs = torch.empty(1, CLICKS, 3), torch.ones(1, CLICKS, dtype=torch.long)
    half = (model.config.half,) * 3
    maps = [torch.empty(1, COSTS, *half) for _ in range(CLICKS)] if model.config.geodesic else None
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        embedding = model.encode(crop)
        corrected = model.decode(embedding, points, signs, mask=torch.empty(shape), geodesic_maps=maps)
        if model.config.candidates:
            proposed = model.propose(embedding, points, signs, geodesic_maps=maps)
            initial = [proposed.logit, *proposed.candidates.split(1, 1)]
        else:
            initial = [model.decode(embedding, points, signs, geodesic_maps=maps)]
        losses = [F.binary_cross_entropy_with_logits(logit.float(), label) for logit in (corrected, *initial)]
    torch.stack(losses).mean().backward()


class Held(TorchDispatchMode):
    """Counts the memory of all tensors that operations make while it is on.

    Meant for tensors without values: any question for a value, as in `if mask.any()`, returns true.

    Attributes:
        now: Bytes held.
        peak: The most that were held.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        operation: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Do an operation and count what it made."""
        if operation is torch.ops.aten._local_scalar_dense.default:
            return True
        result = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size
