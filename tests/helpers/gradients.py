"""A program for torchrun: the gradients of the first step, or the loss of a peer in the middle of training.

python gradients.py CASES OUT            writes OUT, the gradients by name, from the main process: under `whole` those
                                         of a whole step, under `behind` those of one that stops behind the encoder
python gradients.py CASES OUT --lose 1   process 1 dies after the first epoch of training in the folder OUT
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import torch

from sam3d_label.errors import Sam3dError
from sam3d_label.image.intensity import Percentile
from sam3d_label.training import TrainingCase, TrainingRun, TrainReport, TrainSettings, pair_cases
from sam3d_label.training.dataset import TrainingCrops
from sam3d_label.training.distributed import world
from sam3d_label.training.fine_tune import fine_tune, open_cases
from sam3d_label.training.trainer import Trainer
from tests.helpers.networks import SMALL, random_network

SETTINGS = TrainSettings(epochs=50, steps_per_epoch=1, batch=2, warmup=0, workers=0, precision="fp32")


def write_gradients(folder: Path, out: Path) -> None:
    """Those that a step of two crops would take."""
    with world("cpu") as processes:
        found = {}
        for name, share in {"whole": 1.0, "behind": 0.0}.items():
            trainer = Trainer(random_network(), SETTINGS.model_copy(update={"encoder_share": share}), processes)
            trainer._step = lambda: None
            opened, weights = open_cases(cases_of(folder), Percentile(), TrainReport())
            crops = TrainingCrops(opened, weights, size=SMALL.crop, length=2, seed=0)
            trainer.train_epoch(crops, 0)
            found[name] = {name: p.grad for name, p in trainer.trained.items() if p.grad is not None}
        if processes.is_main:
            torch.save(found, out)


def cases_of(folder: Path) -> list[TrainingCase]:
    """The cases of a folder of images/ and labels/."""
    return pair_cases(folder / "images", folder / "labels")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lose", type=int)
    options = parser.parse_args()
    if options.lose is None:
        write_gradients(options.cases, options.out)
        return

    def die() -> None:
        if (options.out / "checkpoint.pt").exists() and int(os.environ["RANK"]) == options.lose:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        run = TrainingRun(cases=cases_of(options.cases), intensity=Percentile(), settings=SETTINGS)
        fine_tune(random_network(), run, options.out, pause=die)
    except Sam3dError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
