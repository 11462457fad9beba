"""The reference set: cases of several kinds on which an update must not lose what earlier weights knew."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sam3d_label.errors import VolumeError
from sam3d_label.image.intensity import IntensityRule
from sam3d_label.image.volume import Volume
from sam3d_label.synthetic import make_phantom
from sam3d_label.synthetic.pet import pet_image
from sam3d_label.training.dataset import OpenedCase, TrainingCase, pair_cases

SHIPPED = Path(__file__).parent / "reference_cases"
"""Folder of the real crops: images/ and labels/. Their source and licence are in README.md there."""

REAL = {"brain1": "MR", "brain2": "MR", "breast1": "MR", "lung1": "CT", "lung2": "CT"}
"""Modality of each real crop."""

PHANTOMS = ("CT", "MR", "PT")
"""DICOM modalities of the phantoms."""

OF_EACH = 3
"""Phantoms of each modality."""

OWN = "own"
"""Kind of a team's own cases. They are numbered because their file names may name patients."""

SEED = 20269
SHAPE, SPACING = (64, 64, 32), (2.0, 2.0, 4.0)
"""Grid of the phantoms: voxels, and mm."""


@dataclass(frozen=True)
class ReferenceSet:
    """Opened reference cases.

    Attributes:
        cases: The cases: real crops, phantoms, and the team's own. A name begins with the kind of the case: its
            modality, or `OWN`.
        skipped: Own cases that cannot be used, and why.
    """

    cases: list[OpenedCase]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of all images and labels, in hex: scores on sets with the same digest can be compared."""
        digest = hashlib.sha256()
        for case in self.cases:
            digest.update(repr((case.name, case.normalization, case.volume.affine.tolist())).encode())
            digest.update(case.volume.array.tobytes())
            digest.update(case.target.array.tobytes())
        return digest.hexdigest()


def open_reference_set(intensity: IntensityRule, own: Path | None = None) -> ReferenceSet:
    """Open the shipped reference cases and those of a team.

    Args:
        intensity: Intensity rule of the weights that will be measured.
        own: Folder with images/ and labels/ of further cases, paired by file name; any voxel but 0 is the target.

    Raises:
        Sam3dError: The folder of own cases lacks images, or none of them has a label.
    """
    cases = [*real_cases(intensity), *phantom_cases(intensity)]
    skipped: dict[str, str] = {}
    for number, case in enumerate(own_cases(own) if own else [], start=1):
        try:
            cases.append(replace(OpenedCase.open(case, intensity), name=f"{OWN} {number}"))
        except VolumeError as error:
            skipped[case.name] = str(error)
    return ReferenceSet(cases, skipped)


def own_cases(folder: Path) -> list[TrainingCase]:
    """Return the cases of a folder with images/ and labels/; errors as `pair_cases`."""
    return pair_cases(folder / "images", folder / "labels")


def real_cases(intensity: IntensityRule) -> Iterator[OpenedCase]:
    """Yield the shipped real crops."""
    for name, modality in REAL.items():
        image, label = (SHIPPED / folder / f"{name}.nii.gz" for folder in ("images", "labels"))
        yield replace(OpenedCase.open(TrainingCase(image, label), intensity), name=f"{modality} {name}")


def phantom_cases(intensity: IntensityRule) -> Iterator[OpenedCase]:
    """Yield the phantoms of the set, the same ones each time."""
    names = [(modality, number) for modality in PHANTOMS for number in range(1, OF_EACH + 1)]
    for (modality, number), stream in zip(names, np.random.SeedSequence(SEED).spawn(len(names)), strict=True):
        rng = np.random.default_rng(stream)
        phantom = make_phantom(rng, SHAPE, SPACING, "mr" if modality == "MR" else "ct")
        image = pet_image(rng, phantom) if modality == "PT" else np.rint(phantom.image)
        volume, label = Volume(image, phantom.affine, modality=modality), Volume(phantom.label, phantom.affine)
        name = Path(f"{modality} phantom {number}")
        yield OpenedCase.of(TrainingCase(name, name), volume, label, intensity.fit(volume.array, modality))
