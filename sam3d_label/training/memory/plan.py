"""Choose how a training run uses memory, from the memory of a step and the free memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sam3d_label.errors import Sam3dError
from sam3d_label.network import PromptableNetwork
from sam3d_label.network.precision import computes_bf16
from sam3d_label.training.memory.free import free_memory
from sam3d_label.training.memory.step_peak import Need, need
from sam3d_label.training.settings import TrainSettings

HEADROOM = 0.85
"""Share of the free memory that a training may plan with."""

CASES_SHARE = 0.5
"""Share of what the steps leave free that opened cases may fill."""

LEAST_FOR_CASES = 64 * 2**20


@dataclass(frozen=True)
class Plan:
    """The memory plan of a run. Runs with the same plan are bitwise equal.

    Attributes:
        bf16: Compute in bf16 autocast.
        checkpointing: Recompute the encoder's activations in the backward pass.
        at_once: Crops of a step that are encoded together; the gradients of the others are added up one after another.
    """

    bf16: bool
    checkpointing: bool
    at_once: int


@dataclass(frozen=True)
class Choice:
    """A plan and the reason for it.

    Attributes:
        plan: The plan.
        why: In a sentence, for people.
        bytes_for_cases: Memory for opened cases, bytes; None if the free memory is unknown.
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
        free: Free memory of the device, bytes; None if unknown.
        earlier: The plan of the run that this one continues, which is kept as long as it fits.

    Raises:
        Sam3dError: Not even the smallest way to train fits.
    """
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and computes_bf16(device))
    ways = list(_ways(settings, bf16, device, part))
    if earlier in ways:
        ways.insert(0, earlier)
    room = None if free is None else int(HEADROOM * free)
    needs: dict[Plan, Need] = {}
    for way in ways:
        needs[way] = need(model, device, bf16=way.bf16, checkpointing=way.checkpointing)
        if room is not None and needs[way].of(way.at_once) <= room:
            plan = way
            break
    else:
        plan = min(needs, key=lambda way: (needs[way].of(way.at_once), not way.checkpointing))
        if room is not None and "auto" in (settings.activation_checkpointing, settings.crops_at_once):
            raise Sam3dError(
                f"a training step needs about {gigabytes(needs[plan].of(plan.at_once))} of memory and"
                f" {gigabytes(room)} can be used on {device}: end other programs, or train a smaller preset"
            )
    return Choice(plan, _reason(plan, needs, room, device, part), _for_cases(needs[plan].of(plan.at_once), device))


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
