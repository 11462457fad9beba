"""Rehearsal: phantoms among the cases of an update, on which it learns what the network answered before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sam3d_label.synthetic import write_phantoms
from sam3d_label.synthetic.phantoms import phantom_name
from sam3d_label.training.dataset import TrainingCase, pair_cases
from sam3d_label.weights import DataSource

PHANTOMS, SEED = 24, 4711
"""Phantoms that are rehearsed. None of them is in the reference set, which has another seed."""

SHARE = 0.5
"""Share of the crops of an update that show one of them."""

SOURCE = DataSource(name="phantoms of sam3d_label (rehearsal)", licence="Apache-2.0", cases=PHANTOMS)


def rehearsal_cases(
    folder: Path, cases: int, pause: Callable[[], None] = lambda: None, *, salient: bool = False
) -> list[TrainingCase]:
    """Return phantoms to train on in addition to a team's cases; they are written at first use.

    Args:
        folder: Where they are, or will be written.
        cases: Number of the team's cases, each of weight 1.
        pause: Called before each phantom is made.
        salient: Whether answers without a prompt are rehearsed too.
    """
    if not all((folder / "images" / phantom_name(index)).is_file() for index in range(PHANTOMS)):
        write_phantoms(folder, PHANTOMS, SEED, progress=lambda name, done, total: pause())
    weight = cases * SHARE / (1 - SHARE) / PHANTOMS
    phantoms = pair_cases(folder / "images", folder / "labels")
    return [replace(case, weight=weight, salient=salient, rehearsed=True) for case in phantoms]
