"""Choose how a training run uses memory, from the memory of a step and the free memory."""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sam3d_label.errors import Sam3dError
from sam3d_label.network import PromptableNetwork
from sam3d_label.training.settings import TrainSettings

HEADROOM = 0.85
"""Share of the free memory that a training may plan with."""

SCRATCH = 6 * 10**8
"""Bytes that kernels and the allocator of a CPU need in addition to tensors, measured with `tiny` and `vit_b`."""

CLICKS = 8
"""Clicks of an estimated round."""

CASES_SHARE = 0.5
"""Share of what the steps leave free that opened cases may fill."""

LEAST_FOR_CASES = 64 * 2**20


@dataclass(frozen=True)
class Plan:
    """The memory plan of a run. A run with the same plan gives the same numbers to the last digit.

    Attributes:
        bf16: Compute in bf16 autocast.
        checkpointing: Recompute the encoder's activations in the backward pass.
        at_once: Crops of a step that are encoded together; the gradients of the others are added up one after another.
    """

    bf16: bool
    checkpointing: bool
    at_once: int

    def as_plain(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)


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
        """With so many crops at once."""
        return self.states + self.scratch + at_once * self.crop


@dataclass(frozen=True)
class Choice:
    """A plan and the reason for it.

    Attributes:
        plan: The plan.
        why: In a sentence, for people.
        bytes_for_cases: What opened cases may fill; None where nobody knows how much memory is free.
    """

    plan: Plan
    why: str
    bytes_for_cases: int | None


def choose(
    model: PromptableNetwork,
    settings: TrainSettings,
    device: torch.device,
    *,
    part: int,
    free: int | None,
    earlier: Plan | None = None,
) -> Choice:
    """Decide how a run uses memory.

    What the settings state is taken as it stands. The rest is chosen so that it fits: activations are kept where they
    can be, and on an accelerator as many crops are encoded at once as fit. On a processor one crop at a time is as
    fast as several.

    Args:
        model: The network, as it is going to train.
        settings: How to train.
        device: Where.
        part: Crops of a step in this process.
        free: Free memory of the device, bytes; None where nobody knows.
        earlier: The plan of the run that this one continues, which is kept as long as it fits.

    Raises:
        Sam3dError: Not even the smallest way to train fits.
    """
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and computes_bf16(device))
    ways = list(_ways(settings, bf16, device, part))
    if earlier in ways:
        ways.insert(0, earlier)
    room = None if free is None else int(HEADROOM * free)
    needs = {way: need(model, device, bf16=way.bf16, checkpointing=way.checkpointing) for way in ways}
    fitting = [way for way in ways if room is not None and needs[way].of(way.at_once) <= room]
    smallest = min(ways, key=lambda way: (needs[way].of(way.at_once), not way.checkpointing))
    if not fitting and room is not None and "auto" in (settings.activation_checkpointing, settings.crops_at_once):
        raise Sam3dError(
            f"a training step needs about {gigabytes(needs[smallest].of(smallest.at_once))} of memory and"
            f" {gigabytes(room)} can be used on {device}: end other programs, or train a smaller preset"
        )
    plan = fitting[0] if fitting else smallest
    return Choice(plan, _reason(plan, needs, room, device, part), _for_cases(needs[plan].of(plan.at_once), device))


def need(model: PromptableNetwork, device: torch.device, *, bf16: bool, checkpointing: bool) -> Need:
    """What training a network holds at its peak in addition to its weights.

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
    """Peak of a step on one crop, found by going through it with tensors that have sizes and no memory, bytes."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        fake = copy.deepcopy(model)
    with mode, torch.device(device), Held() as held:
        fake.train()
        fake.checkpoint_activations(checkpointing)
        _step(fake, device, bf16)
    return held.peak


def _step(model: PromptableNetwork, device: str, bf16: bool) -> None:
    """The two rounds that learn, on one crop."""
    shape = (1, 1, *(model.config.crop,) * 3)
    crop, label = torch.empty(shape), torch.empty(shape)
    points, signs = torch.empty(1, CLICKS, 3), torch.ones(1, CLICKS, dtype=torch.long)
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        embedding = model.encode(crop)
        logits = [model.decode(embedding, points, signs, mask=mask).float() for mask in (None, torch.empty(shape))]
        losses = [F.binary_cross_entropy_with_logits(logit, label) for logit in logits]
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
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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


def free_memory(device: torch.device) -> int | None:
    """Memory that a training may use, bytes: of the GPU, or of this process's share of the machine.

    Processes that torchrun started on one machine share its memory. None where the system does not report it.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type != "cpu":
        return None
    free = min((psutil.virtual_memory().available, *cgroup_rooms()))
    return int(free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def cgroup_rooms(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Return the free memory under each limit of this process's control groups, bytes; file caches count as free."""
    try:
        inside = next(line[3:] for line in own.read_text(encoding="utf-8").splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    folder = root / inside.strip("/")
    for group in (folder, *folder.parents):
        try:
            limit = int((group / "memory.max").read_text(encoding="ascii"))
            used = int((group / "memory.current").read_text(encoding="ascii"))
            stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        except (OSError, ValueError):
            continue  # there is no such file at the root, and "max" is no limit
        yield max(0, limit - used + int(stat.get("inactive_file", 0)))


def computes_bf16(device: torch.device) -> bool:
    """Return whether a device has bf16 arithmetic; a processor without it takes many times as long as in fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def gigabytes(size: int) -> str:
    """Return a size for people."""
    return f"{size / 1e9:.1f} GB"


def _ways(settings: TrainSettings, bf16: bool, device: torch.device, part: int) -> Iterator[Plan]:
    """Return the plans that the settings allow, the fastest first."""
    asked = settings.activation_checkpointing
    for checkpointing in (False, True) if asked == "auto" else (asked,):
        if settings.crops_at_once != "auto":
            yield Plan(bf16, checkpointing, min(settings.crops_at_once, part))
        elif device.type == "cpu":
            yield Plan(bf16, checkpointing, 1)
        else:
            yield from (Plan(bf16, checkpointing, at_once) for at_once in range(part, 0, -1))


def _reason(plan: Plan, needs: dict[Plan, Need], room: int | None, device: torch.device, part: int) -> str:
    """Return why a plan was chosen."""
    precision = "bf16" if plan.bf16 else "fp32"
    crops = "1 crop" if plan.at_once == 1 else f"{plan.at_once} crops"
    kept = "activations recomputed" if plan.checkpointing else "activations kept"
    usable = "an unknown amount" if room is None else gigabytes(room)
    needed = gigabytes(needs[plan].of(plan.at_once))
    why = f"{precision}, {crops} of {part} at once, {kept}: needs about {needed}, {usable} can be used on {device}"
    others = [way for way in needs if not way.checkpointing]
    if plan.checkpointing and others:
        why += f"; kept activations would need {gigabytes(min(needs[way].of(way.at_once) for way in others))}"
    return why


def _for_cases(needed: int, device: torch.device) -> int | None:
    """Return the main memory for opened cases next to a training that needs so much of the device's memory."""
    host = free_memory(torch.device("cpu"))
    if host is None:
        return None
    return max(LEAST_FOR_CASES, int(CASES_SHARE * (host - needed * (device.type == "cpu"))))
