"""Memory of a training step by preset, as a training plans with it; no SAM checkpoint is needed.

    python benchmarks/training_memory.py [--presets tiny,vit_b] [--device cpu]

The step runs with tensors that have sizes and no memory. The numbers are for one crop and include the weights,
gradients, AdamW's moments and the running average. An update holds the weights twice more, those of the active version
and those whose answers are rehearsed; the last column has the size of one copy.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from sam3d_label.network import PRESETS, SAM3D
from sam3d_label.training.memory.step_peak import need
from sam3d_label.weights.adapter import freeze_trunk

WAYS = {
    f"{'bf16' if bf16 else 'fp32'}, {'recomputed' if checkpointing else 'kept'}": (bf16, checkpointing)
    for bf16 in (True, False)
    for checkpointing in (True, False)
}
"""Precision, and whether the encoder's activations are recomputed or kept."""


def needs_of(preset: str, device: str) -> tuple[list[int], int]:
    """Return the bytes of a step with a preset on a device, for each of `WAYS`, and those of the weights."""
    model = freeze_trunk(SAM3D(PRESETS[preset])).to(device)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    place = torch.device(device)
    steps = [need(model, place, bf16=bf16, checkpointing=checkpointing) for bf16, checkpointing in WAYS.values()]
    return [weights + step.of(1) for step in steps], weights


def main(
    presets: Annotated[str, typer.Option(help="Names of presets, separated by commas.")] = ",".join(PRESETS),
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
) -> None:
    """Compute and print."""
    table = Table("preset", *WAYS, "weights", title=f"GB of a training step with one crop on {device}")
    for preset in presets.split(","):
        needed, weights = needs_of(preset, device)
        table.add_row(preset, *(f"{each / 1e9:.1f}" for each in (*needed, weights)))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
