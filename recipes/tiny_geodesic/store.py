"""Make a folder of weights from the result of a training.

python -m recipes.tiny_geodesic.store OUT/ema.safetensors FOLDER
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from safetensors.torch import load_file

from recipes.tiny_geodesic.train import CONFIG
from sam3d_label.network import SAM3D
from sam3d_label.weights import Base, Card, DataSource, Training
from sam3d_label.weights.adapter import save_adapter, save_trunk
from sam3d_label.weights.load import UNTRAINED_INTENSITY
from sam3d_label.weights.locations import TRUNK
from sam3d_label.weights.tensors import sha256

NAME = "tiny-geodesic"
TCIA = "TCIA, Vallieres et al. 2015, doi 10.7937/K9/TCIA.2015.7GO2GSKS"
MADE = "sam3d_label.synthetic and recipes.tiny_geodesic.synthesis, from the volumes above"
DATA = [
    DataSource(
        name="Soft-tissue-Sarcoma, patients 001-028, T1 MR and CT (IBSI validation dataset)",
        licence="CC BY 3.0",
        source=TCIA,
        cases=45,
    ),
    DataSource(name="Soft-tissue-Sarcoma, patients 001-028, FDG-PET", licence="CC BY 3.0", source=TCIA, cases=28),
    DataSource(name="TotalSegmentator test files (MR, CT)", licence="Apache-2.0", source="TotalSegmentator", cases=3),
    DataSource(name="Spinal Cord Toolbox test data", licence="MIT", source="Spinal Cord Toolbox", cases=2),
    DataSource(name="LIDC-IDRI-0314, 4D-Lung 113_HM10395, R01-001", licence="CC BY 3.0", source="TCIA", cases=3),
    DataSource(name="CRLM-CT-1006", licence="CC BY 4.0", source="TCIA", cases=1),
    DataSource(name="head MR, T1, defaced", licence="PDDL (public domain)", cases=1),
    DataSource(
        name="CRLM-CT-1004, without labels, in the training before this one", licence="CC BY 4.0", source="TCIA"
    ),
    DataSource(name="phantoms, mosaics, planted lesions, images from label maps", licence="Apache-2.0", source=MADE),
]
CARD = Card(
    preset=NAME,
    config=CONFIG,
    base=Base(name=NAME),
    spacing=2.0,
    scales=(0.25, 0.5, 1.0, 2.0),
    intensity=UNTRAINED_INTENSITY,
    capabilities=["positive_click", "negative_click", "mask", "box", "no_click"],
    labels=["tumor"],
    training=Training.model_validate(
        {"data": DATA, "start": "tiny-4", "recipe": "recipes/tiny_geodesic", "steps": 1093, "batch": 16, "seconds": 409}
    ),
    licence="Apache-2.0",
    version="tiny-geodesic-1",
    date=date.today().isoformat(),
)


def main(trained: Path, folder: Path) -> None:
    """Write adapter, trunk and card."""
    model = SAM3D(CONFIG)
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(trained).items()})
    folder.mkdir(parents=True, exist_ok=True)
    trunk = save_trunk(model, folder / TRUNK)
    save_adapter(model, CARD.model_copy(update={"base": Base(name=NAME, sha256=sha256(trunk))}), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
