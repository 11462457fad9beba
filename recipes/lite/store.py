"""Make a folder of weights from the result of the trial with LiteMedSAM's features.

python -m recipes.lite.store TRAINED FOLDER
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from recipes.tiny_geodesic.store import TCIA
from sam3d_label.network import PRESETS
from sam3d_label.weights import Base, Card, DataSource, Training
from sam3d_label.weights.adapter import assemble, save_adapter, save_trunk
from sam3d_label.weights.load import UNTRAINED_INTENSITY
from sam3d_label.weights.locations import TRUNK
from sam3d_label.weights.tensors import sha256

PRESET = "lite"
RENAMED = {
    "side.level1.": "slice_features.levels.0.",
    "side.level2.": "slice_features.levels.1.",
    "side.map4.": "slice_features.deepest.",
    "side.": "slice_features.",
}
"""Beginnings of the names of the trial, and those of `SAM3D`."""

DATA = [
    DataSource(
        name="Soft-tissue-Sarcoma, patients 001-028, T1 MR and CT (IBSI validation dataset)",
        licence="CC BY 3.0",
        source=TCIA,
        cases=45,
    ),
    DataSource(name="TotalSegmentator test file (MR)", licence="Apache-2.0", source="TotalSegmentator", cases=1),
    DataSource(name="LIDC-IDRI-0314, 4D-Lung 113_HM10395, R01-001", licence="CC BY 3.0", source="TCIA", cases=3),
    DataSource(name="CRLM-CT-1006", licence="CC BY 4.0", source="TCIA", cases=1),
    DataSource(name="head MR, T1, defaced", licence="PDDL (public domain)", cases=1),
    DataSource(
        name="CRLM-CT-1004, without labels, in the training before this one", licence="CC BY 4.0", source="TCIA"
    ),
    DataSource(
        name="phantoms, mosaics, inserted lesions, images from label maps",
        licence="Apache-2.0",
        source="synthesis from the volumes above",
    ),
    DataSource(
        name="LiteMedSAM (frozen image encoder): public 2D images and masks, chosen by its authors, probably with BraTS"
        " and the Medical Segmentation Decathlon",
        licence="Apache-2.0",
        source="https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM",
    ),
]
CARD = Card(
    preset=PRESET,
    config=PRESETS[PRESET],
    base=Base(name=PRESET),
    spacing=2.0,
    scales=(0.25, 0.5, 1.0, 2.0),
    intensity=UNTRAINED_INTENSITY,
    capabilities=["positive_click", "negative_click", "mask", "box"],
    labels=["tumor"],
    training=Training.model_validate(
        {"data": DATA, "start": "tiny-4", "recipe": "recipes/lite", "steps": 659, "batch": 8}
    ),
    licence="Apache-2.0",
    version="lite-1",
    date=date.today().isoformat(),
)


def network_name(name: str) -> str:
    """Return the name in `SAM3D` of a tensor of the trial."""
    for theirs, ours in RENAMED.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def network_tensors(trained: Path) -> dict[str, Tensor]:
    """Return the tensors of the trial by their names in `SAM3D`, float32."""
    return {network_name(name): tensor.float() for name, tensor in load_file(trained).items()}


def main(trained: Path, folder: Path) -> None:
    """Write adapter, trunk and card."""
    model = assemble(CARD.config, network_tensors(trained))
    folder.mkdir(parents=True, exist_ok=True)
    base = Base(name=PRESET, sha256=sha256(save_trunk(model, folder / TRUNK)))
    save_adapter(model, CARD.model_copy(update={"base": base}), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
