"""A training run as a file that several processes take part in: torchrun -m sam3d_label.training.launch FILE."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import typer
from pydantic import BaseModel, ConfigDict

from sam3d_label.errors import Sam3dError
from sam3d_label.image.intensity import IntensityRule
from sam3d_label.io import replacing, write_text
from sam3d_label.network import SAM3D, Config, PromptableNetwork
from sam3d_label.training.busy import BusySign
from sam3d_label.training.dataset import Case
from sam3d_label.training.distributed import is_main
from sam3d_label.training.fine_tune import TrainReport, fine_tune
from sam3d_label.training.log import EpochLog
from sam3d_label.training.settings import TrainSettings

JOB, WEIGHTS, DONE = "job.json", "start.pt", "done.pt"
LAST_WORDS = 12
"""Lines that a failed run's error repeats."""

REASON = "ended early: "
"""Begins the line in which a process says why it ends."""


class Job(BaseModel):
    """What `fine_tune` is called with; the weights to start from lie beside the file as start.pt."""

    model_config = ConfigDict(extra="forbid")
    format: Literal[1] = 1
    config: Config
    cases: list[Case]
    validation: list[Case]
    intensity: IntensityRule
    settings: TrainSettings
    device: str
    resume: bool
    busy: Path | None


def train_in_processes(processes: int, busy: Path | None = None) -> Callable[..., TrainReport]:
    """A stand-in for `fine_tune` that starts several processes on this machine, one for each GPU.

    Args:
        processes: How many.
        busy: Folder with the `BusySign` for which they wait.
    """

    def train(
        model: PromptableNetwork,
        cases: Sequence[Case],
        out: Path,
        *,
        intensity: IntensityRule,
        validation: Sequence[Case] = (),
        settings: TrainSettings | None = None,
        device: str = "cuda",
        resume: bool = False,
        progress: Callable[[EpochLog], None] | None = None,
        pause: Callable[[], None] | None = None,
    ) -> TrainReport:
        job = Job(
            config=model.config,
            cases=list(cases),
            validation=list(validation),
            intensity=intensity,
            settings=settings or TrainSettings(),
            device=device,
            resume=resume,
            busy=busy,
        )
        out.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), out / WEIGHTS)
        write_text(out / JOB, job.model_dump_json())
        (out / DONE).unlink(missing_ok=True)
        _run(processes, out / JOB, progress)
        done: dict[str, Any] = torch.load(out / DONE, map_location="cpu", weights_only=True)
        model.load_state_dict(done["weights"])
        model.eval()
        epochs = [EpochLog(**log) for log in done["report"].pop("epochs")]
        return TrainReport(epochs=epochs, **done["report"])

    return train


def _run(processes: int, job: Path, progress: Callable[[EpochLog], None] | None) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words: deque[str] = deque(maxlen=LAST_WORDS)
    reasons: list[str] = []
    with subprocess.Popen(
        [*command, "-m", "sam3d_label.training.launch", str(job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            log = EpochLog.from_line(line)
            if log is None:
                (reasons if line.startswith(REASON) else words).append(line.rstrip())
            elif progress:
                progress(log)
    if running.returncode:
        why = reasons[0].removeprefix(REASON) if reasons else " | ".join(words)
        raise Sam3dError(f"the training in {processes} processes ended early; its last checkpoint is kept: {why}")


def main(job_file: Path) -> None:
    """Take part in a run; what is wrong with it is told in a line, with exit status 1."""
    try:
        _take_part(job_file)
    except Sam3dError as error:
        print(REASON + " ".join(str(error).split()), flush=True)
        raise typer.Exit(1) from error


def _take_part(job_file: Path) -> None:
    job = Job.model_validate_json(job_file.read_text(encoding="utf-8"))
    folder = job_file.parent
    model = SAM3D(job.config)
    model.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
    report = fine_tune(
        model,
        job.cases,
        folder,
        intensity=job.intensity,
        validation=job.validation,
        settings=job.settings,
        device=job.device,
        resume=job.resume,
        progress=lambda log: print(log.as_line(), flush=True),
        pause=BusySign(job.busy).wait if job.busy else None,
    )
    if is_main():
        with replacing(folder / DONE) as beside:
            torch.save({"weights": model.cpu().state_dict(), "report": report.as_plain()}, beside)


if __name__ == "__main__":
    typer.run(main)
