"""How the shipped weights `tiny` are made: python -m recipes.tiny.train STS OUT, under torchrun or not."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from sam3d_label.image.intensity import SOFT_TISSUE, CtOrMr, Percentile
from sam3d_label.image.volume import Volume, save_mask
from sam3d_label.network import PRESETS, SAM3D, PromptableNetwork
from sam3d_label.synthetic import Modality, insert_lesions, save_nifti, write_mosaics, write_phantoms
from sam3d_label.synthetic.supervoxels import find_supervoxels
from sam3d_label.training.dataset import OpenedCase, TrainingCase, pair_cases
from sam3d_label.training.distributed import is_main
from sam3d_label.training.export import store
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.training.log import describe
from sam3d_label.training.run import TrainingRun
from sam3d_label.training.settings import TrainSettings
from sam3d_label.weights import Base, Card, DataSource, Training, open_weights

INTENSITY = CtOrMr(ct=SOFT_TISSUE, mr=Percentile())
START = Card(
    preset="tiny",
    config=PRESETS["tiny"],
    base=Base(name="tiny"),
    spacing=2.0,
    intensity=INTENSITY,
    capabilities=[],
    labels=["tumor"],
    training=Training(),
    licence="Apache-2.0",
    version="untrained",
    date="2026-11-23",
)
VERSION = "tiny-4"
LAST_TRAINING_PATIENT = 28
PHANTOMS, MOSAICS, DIVISIONS, SEED = 160, 80, 3, 20262
"""Phantoms, mosaics, and divisions into pieces of each sarcoma volume."""

ORGANS, REGIONS = 2, 4
"""Targets of each phantom in addition to its lesion, and of each mosaic, division into pieces and image with inserted
lesions."""

FEWEST_VOXELS = 200
SHARES = {"_mr": 0.27, "_ct": 0.18, "piece": 0.1, "planted": 0.15, "lesion": 0.17, "organ": 0.08, "region": 0.05}
"""Share of the training crops of each kind of case."""

KEPT = 0.5
"""Share of the weights that a run went on from in those that it gives: what it unlearned comes back, most of what it
learned stays (Wortsman et al., arXiv 2109.01903)."""

SETTINGS = TrainSettings(
    epochs=40,
    steps_per_epoch=100,
    batch=2,
    learning_rate=8e-4,
    weight_decay=0.02,
    warmup=200,
    average=0.999,
    clicks=4,
    rough_mask_share=0.3,
    inference_share=0.5,
    inference_spacings=(2.0, 0.5, 1.0, 4.0),
    validate_every=4,
    trunk=True,
)


def patient(case: TrainingCase) -> int:
    """Return the number of the patient in a file name such as sts_012_mr.nii.gz."""
    match = re.search(r"_(\d{3})_", case.name)
    if match is None:
        raise ValueError(f"{case.name} carries no patient number")
    return int(match.group(1))


def with_weights(cases: Iterable[TrainingCase], share: float) -> list[TrainingCase]:
    """Return cases that together have the given share of the training crops."""
    cases = list(cases)
    return [replace(case, weight=share / len(cases)) for case in cases]


def split(sts: Path) -> tuple[list[TrainingCase], list[TrainingCase]]:
    """Split the sarcomas by patient into weighted training cases and validation cases."""
    everyone = [replace(case, salient=True) for case in pair_cases(sts / "images", sts / "labels")]
    seen = [case for case in everyone if patient(case) <= LAST_TRAINING_PATIENT]
    training = [
        case for kind in ("_mr", "_ct") for case in with_weights((c for c in seen if kind in c.name), SHARES[kind])
    ]
    return training, [case for case in everyone if patient(case) > LAST_TRAINING_PATIENT]


def every_case(sts: Path, out: Path) -> tuple[list[TrainingCase], list[TrainingCase]]:
    """Return the training cases, synthetic ones made in `out` if they are missing, and the validation cases."""
    training, validation = split(sts)
    made = [*painted_cases(out), *piece_cases(training, out / "pieces"), *planted_cases(training, out / "planted")]
    return [*made, *training], validation


def painted_cases(folder: Path) -> list[TrainingCase]:
    """Return phantoms and mosaics, made if they are missing: lesions, organs and regions as targets."""
    phantoms, mosaics = folder / "phantoms", folder / "mosaics"
    if not phantoms.exists():
        write_phantoms(phantoms, PHANTOMS, SEED, organs=True)
    if not mosaics.exists():
        write_mosaics(mosaics, MOSAICS, SEED)
    lesions = [replace(case, salient=True) for case in pair_cases(phantoms / "images", phantoms / "labels")]
    organs = sample_structures(pair_cases(phantoms / "images", phantoms / "organs"), ORGANS)
    regions = sample_structures(pair_cases(mosaics / "images", mosaics / "labels"), REGIONS)
    return [
        *with_weights(lesions, SHARES["lesion"]),
        *with_weights(organs, SHARES["organ"]),
        *with_weights(regions, SHARES["region"]),
    ]


def piece_cases(cases: Sequence[TrainingCase], folder: Path) -> list[TrainingCase]:
    """Return cases with pieces of images as further targets; missing pieces are computed."""
    found = []
    for case in cases:
        for number in range(DIVISIONS):
            path = folder / f"{number}_{case.name}"
            if not path.exists():
                opened = OpenedCase.open(case, INTENSITY)
                rng = np.random.default_rng([SEED, number, zlib.crc32(case.name.encode())])
                label = find_supervoxels(opened.volume, opened.normalization, opened.target.array > 0, rng)
                save_mask(path, label, opened.volume)
            found.append(replace(case, label=path, salient=False))
    return with_weights(sample_structures(found, REGIONS), SHARES["piece"])


def planted_cases(cases: Sequence[TrainingCase], folder: Path) -> list[TrainingCase]:
    """Return cases with small inserted lesions, each a separate target; missing ones are computed."""
    found = []
    for case in cases:
        image, label = folder / "images" / case.image.name, folder / "labels" / case.image.name
        if not (image.exists() and label.exists()):
            volume, drawn = Volume.open(case.image), Volume.open(case.label)
            rng = np.random.default_rng([SEED, zlib.crc32(case.name.encode())])
            modality: Modality = "ct" if "_ct" in case.name else "mr"
            planted, lesions = insert_lesions(rng, volume.array, volume.spacing.tolist(), modality, drawn.array > 0)
            save_nifti(image, planted, volume.affine)
            save_nifti(label, lesions, volume.affine)
        found.append(replace(case, image=image, label=label, salient=False))
    return with_weights(sample_structures(found, most=REGIONS, fewest=1), SHARES["planted"])


def sample_structures(cases: Iterable[TrainingCase], most: int, fewest: int = FEWEST_VOXELS) -> Iterator[TrainingCase]:
    """Yield each case once for each of up to `most` random structures of its label with at least `fewest` voxels."""
    for case in cases:
        values, sizes = np.unique(Volume.open(case.label).array, return_counts=True)
        present = [int(value) for value, size in zip(values, sizes, strict=True) if value and size >= fewest]
        rng = np.random.default_rng([SEED, zlib.crc32(case.label.name.encode())])
        yield from (replace(case, value=int(value)) for value in rng.permutation(present)[:most])


@torch.no_grad()
def mix_in(model: PromptableNetwork, earlier: PromptableNetwork, share: float) -> None:
    """Give the weights of an earlier network so large a share in those of a network, as far as that had them."""
    before = dict(earlier.named_parameters())
    for name, parameter in model.named_parameters():
        if name in before:
            parameter.lerp_(before[name], share)


def main(
    sts: Annotated[Path, typer.Argument(help="Folder with images/ and labels/ of the soft-tissue sarcomas.")],
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint, the log and the weights.")],
    epochs: int = SETTINGS.epochs,
    weights: Annotated[str | None, typer.Option(help="Go on from these, and leave their trunk as it is.")] = None,
    keep: Annotated[float, typer.Option(help="Share of those weights in the result.", min=0, max=1)] = KEPT,
    threads: int = 2,
    resume: bool = False,
) -> None:
    """Train the network `tiny` on sarcomas of patients 001-028, targets from their images, phantoms and mosaics."""
    torch.set_num_threads(threads)
    settings = SETTINGS.model_copy(update={"epochs": epochs, "trunk": weights is None})
    training, validation = every_case(sts, out)
    torch.manual_seed(settings.seed)
    model, start = SAM3D(PRESETS["tiny"]), START
    earlier = open_weights(weights) if weights else None
    if earlier:
        model.load_state_dict(earlier.model.state_dict(), strict=False)  # new parts start untrained
        start = START.model_copy(update={"base": earlier.card.base, "version": earlier.version})
    report = fine_tune(
        model,
        TrainingRun(cases=training, validation=validation, intensity=INTENSITY, settings=settings, resume=resume),
        out,
        progress=lambda log: print(describe(log, epochs), flush=True),
    )
    if not is_main():
        return
    if earlier:
        mix_in(model, earlier.model, keep)
    store(model, start, out / "weights", report=report, settings=settings, data=SOURCES, version=VERSION)
    print(f"wrote {out / 'weights'}")


SOURCES = [
    DataSource(
        name="Soft-tissue-Sarcoma, patients 001-028, T1 MR and CT (IBSI validation dataset)",
        licence="CC BY 3.0",
        source="TCIA, Vallieres et al. 2015, doi 10.7937/K9/TCIA.2015.7GO2GSKS",
        cases=45,
    ),
    DataSource(
        name=f"the same volumes with small lesions painted into them, seed {SEED}",
        licence="CC BY 3.0",
        source="the volumes above, sam3d_label.synthetic",
        cases=45,
    ),
    DataSource(name=f"phantoms, seed {SEED}", licence="Apache-2.0", source="sam3d_label.synthetic", cases=PHANTOMS),
    DataSource(name=f"mosaics, seed {SEED}", licence="Apache-2.0", source="sam3d_label.synthetic", cases=MOSAICS),
]


if __name__ == "__main__":
    typer.run(main)
