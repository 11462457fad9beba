"""A program for torchrun: the gradients of the first step, or the loss of a peer in the middle of training.

python gradients.py CASES OUT            writes OUT, the gradients by name, from the main process
python gradients.py CASES OUT --behind   the same of a step whose gradients do not reach the encoder
python gradients.py CASES OUT --lose 1   process 1 dies after the first epoch of training in the folder OUT
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import torch

from sam3d_label.errors import Sam3dError
from sam3d_label.intensity import Percentile
from sam3d_label.network import SAM3D
from sam3d_label.training import TrainReport, TrainSettings, fine_tune, pair_cases
from sam3d_label.training.crops import TrainingCrops
from sam3d_label.training.fine_tune import open_cases
from sam3d_label.training.trainer import Trainer
from sam3d_label.training.world import world
from tests.conftest import SMALL

SETTINGS = TrainSettings(epochs=50, steps_per_epoch=1, batch=2, warmup=0, workers=0, precision="fp32")


def network() -> SAM3D:
    """The same in every process."""
    torch.manual_seed(0)
    model = SAM3D(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def write_gradients(cases, out: Path, settings: TrainSettings) -> None:
    """Those that a step of two crops would take."""
    with world("cpu") as processes:
        trainer = Trainer(network(), settings, processes)
        trainer._step = lambda: None
        opened, weights = open_cases(cases, Percentile(), TrainReport())
        crops = TrainingCrops(opened, weights, size=SMALL.crop, length=2, seed=0)
        trainer.train_epoch(crops, 0)
        if processes.is_main:
            torch.save({name: p.grad for name, p in trainer.trained.items() if p.grad is not None}, out)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--behind", action="store_true")
    parser.add_argument("--lose", type=int)
    told = parser.parse_args()
    cases = pair_cases(told.cases / "images", told.cases / "labels")
    if told.lose is None:
        write_gradients(cases, told.out, SETTINGS.model_copy(update={"encoder_share": 0.0 if told.behind else 1.0}))
        return

    def die() -> None:
        if (told.out / "checkpoint.pt").exists() and int(os.environ["RANK"]) == told.lose:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        fine_tune(network(), cases, told.out, intensity=Percentile(), settings=SETTINGS, pause=die)
    except Sam3dError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
