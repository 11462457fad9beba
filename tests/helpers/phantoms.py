"""Phantoms that are quick to make, to open and to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sam3d_label.synthetic import make_phantom
from sam3d_label.synthetic.phantoms import save_nifti
from sam3d_label.training import TrainingCase, pair_cases

SHAPE = (64, 56, 24)
SPACING = (1.1, 1.3, 3.0)


def small_phantoms(folder: Path, cases: int, shape: tuple[int, int, int] = SHAPE) -> list[TrainingCase]:
    """Write phantoms on a small grid into `folder`, as `write_phantoms` does on large ones."""
    for index in range(cases):
        phantom = make_phantom(np.random.default_rng(index), shape, SPACING)
        name = f"phantom_{index:03d}.nii.gz"
        save_nifti(folder / "images" / name, np.rint(phantom.image).astype(np.int16), phantom.affine)
        save_nifti(folder / "labels" / name, phantom.label, phantom.affine)
    return pair_cases(folder / "images", folder / "labels")
