"""How the shipped weights `tiny` were made: python -m sam3d_label.training.tiny STS OUT."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from sam3d_label.intensity import CtOrMr, Percentile, Window
from sam3d_label.network import PRESETS, SAM3D
from sam3d_label.phantoms import write_phantoms
from sam3d_label.training.crops import Case, pair_cases
from sam3d_label.training.fine_tune import EpochLog, TrainReport, fine_tune
from sam3d_label.training.settings import TrainSettings
from sam3d_label.training.store import store
from sam3d_label.weights import Base, Card, DataSource, Training

INTENSITY = CtOrMr(ct=Window(lower=-160, upper=240, mean=40, std=100), mr=Percentile())
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
VERSION = "tiny-1"
LAST_TRAINING_PATIENT = 28
PHANTOMS, PHANTOM_SEED = 200, 20261
SHARES = {"_mr": 0.45, "_ct": 0.2, "phantom": 0.35}
"""Share of the training crops that each kind of case gives."""


def patient(case: Case) -> int:
    """Number of the patient in a file name such as sts_012_mr.nii.gz."""
    match = re.search(r"_(\d{3})_", case.name)
    if match is None:
        raise ValueError(f"{case.name} carries no patient number")
    return int(match.group(1))


def weighted(cases: Iterable[Case], share: float) -> list[Case]:
    """Cases that together have the given share of the training crops."""
    cases = list(cases)
    return [Case(case.image, case.label, share / len(cases)) for case in cases]


def main(
    sts: Annotated[Path, typer.Argument(help="Folder with images/ and labels/ of the soft-tissue sarcomas.")],
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint, the log and the weights.")],
    epochs: int = 32,
    threads: int = 2,
    resume: bool = False,
) -> None:
    """Train the network `tiny` whole, from scratch, on sarcomas of patients 001-028 and on phantoms."""
    torch.set_num_threads(threads)
    phantoms = out / "phantoms"
    if not phantoms.exists():
        write_phantoms(phantoms, PHANTOMS, PHANTOM_SEED)
    everyone = pair_cases(sts / "images", sts / "labels")
    training = [case for case in everyone if patient(case) <= LAST_TRAINING_PATIENT]
    cases = weighted(pair_cases(phantoms / "images", phantoms / "labels"), SHARES["phantom"])
    for kind in ("_mr", "_ct"):
        cases += weighted((case for case in training if kind in case.name), SHARES[kind])
    settings = TrainSettings(
        epochs=epochs,
        steps_per_epoch=100,
        learning_rate=8e-4,
        weight_decay=0.02,
        warmup=200,
        validate_every=2,
        trunk=True,
    )
    torch.manual_seed(settings.seed)
    model = SAM3D(PRESETS["tiny"])
    console = Console()

    def show(log: EpochLog) -> None:
        console.print(
            f"epoch {log.epoch + 1}/{epochs}  loss {log.loss:.4f}  Dice@1 {log.dice_1:.3f}"
            f"  Dice@3 {log.dice_3:.3f}  rate {log.learning_rate:.1e}  {log.seconds:.0f} s"
        )

    report = fine_tune(
        model,
        cases,
        out,
        intensity=INTENSITY,
        validation=[case for case in everyone if patient(case) > LAST_TRAINING_PATIENT],
        settings=settings,
        resume=resume,
        progress=show,
    )
    store(model, START, out / "weights", report=report, settings=settings, data=sources(report), version=VERSION)
    console.print(f"wrote {out / 'weights'}")


def sources(report: TrainReport) -> list[DataSource]:
    """What the weights were trained on, counted from what did train."""
    painted = sum(name.startswith("phantom") for name in report.trained)
    return [
        DataSource(
            name="Soft-tissue-Sarcoma, patients 001-028, T1 MR and CT (IBSI validation dataset)",
            licence="CC BY 3.0",
            source="TCIA, Vallieres et al. 2015, doi 10.7937/K9/TCIA.2015.7GO2GSKS",
            cases=len(report.trained) - painted,
        ),
        DataSource(
            name=f"phantoms, seed {PHANTOM_SEED}",
            licence="Apache-2.0",
            source=f"python -m sam3d_label phantom OUT --cases {PHANTOMS} --seed {PHANTOM_SEED}",
            cases=painted,
        ),
    ]


if __name__ == "__main__":
    typer.run(main)
