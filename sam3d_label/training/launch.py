"""A training run as a file that several processes take part in: torchrun -m sam3d_label.training.launch FILE."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import torch
import typer
from pydantic import BaseModel, ValidationError
from torch import Tensor

from sam3d_label.errors import Sam3dError
from sam3d_label.io import read_record, replacing, write_text
from sam3d_label.network import SAM3D, Config, PromptableNetwork
from sam3d_label.training.busy import BusySign
from sam3d_label.training.distributed import is_main
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.training.log import EpochLog
from sam3d_label.training.run import FineTune, OnStep, TrainingRun, TrainReport

JOB, WEIGHTS, DONE = "job.json", "start.pt", "done.pt"
LAST_WORDS = 12
"""Lines that a failed run's error repeats."""


class Message(BaseModel):
    """A line of the output in which a process reports to the one that started it.

    Attributes:
        step: A step that is done, as `OnStep` takes it.
        epoch: The log of an epoch that is done.
        reason: Why the process ends early.
    """

    step: tuple[int, int, int] | None = None
    epoch: EpochLog | None = None
    reason: str | None = None

    def as_line(self, mark: str) -> str:
        """Return the line, which begins with a mark that no other output has."""
        return f"\n{mark} {self.model_dump_json(exclude_none=True)}\n"

    @classmethod
    def from_line(cls, line: str, mark: str) -> Message | None:
        """Return the message of a line; None for other output, such as that of a library."""
        if not line.startswith(f"{mark} "):
            return None
        try:
            return cls.model_validate_json(line.removeprefix(mark))
        except ValidationError:
            return None  # the output of two processes is mixed up


class TrainingJob(TrainingRun):
    """A training run as the processes read it; the weights to start from are next to the file, in start.pt.

    Attributes:
        config: Sizes of the network.
        busy: Folder with the `BusySign` for which they wait.
        mark: Begins the lines with a `Message`.
    """

    config: Config
    busy: Path | None
    mark: str = "message"


class _Done(TypedDict):
    """The file in which the main process returns its result."""

    weights: dict[str, Tensor]
    report: dict[str, object]


def train_in_processes(processes: int, busy: Path | None = None) -> FineTune:
    """Return a replacement for `fine_tune` that starts several processes on this machine, one for each GPU.

    Args:
        processes: How many.
        busy: Folder with the `BusySign` for which they wait.
    """

    def train(
        model: PromptableNetwork,
        run: TrainingRun,
        out: Path,
        *,
        progress: Callable[[EpochLog], None] | None = None,
        on_step: OnStep | None = None,
        pause: Callable[[], None] | None = None,
    ) -> TrainReport:
        given = {name: getattr(run, name) for name in TrainingRun.model_fields}
        job = TrainingJob(config=model.config, busy=busy, mark=f"message {secrets.token_hex(8)}", **given)
        out.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), out / WEIGHTS)
        write_text(out / JOB, job.model_dump_json())
        (out / DONE).unlink(missing_ok=True)
        _run(processes, out / JOB, job.mark, progress, on_step)
        done: _Done = torch.load(out / DONE, map_location="cpu", weights_only=True)
        model.load_state_dict(done["weights"])
        model.eval()
        return TrainReport.parse(done["report"], out / DONE)

    return train


def _run(
    processes: int, job: Path, mark: str, progress: Callable[[EpochLog], None] | None, on_step: OnStep | None
) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words: deque[str] = deque(maxlen=LAST_WORDS)
    reasons: list[str] = []
    with subprocess.Popen(
        [*command, "-m", "sam3d_label.training.launch", str(job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            message = Message.from_line(line, mark)
            if message is None:
                words.extend([line.rstrip()] if line.strip() else [])
            elif message.step and on_step:
                on_step(*message.step)
            elif message.epoch and progress:
                progress(message.epoch)
            elif message.reason:
                reasons.append(message.reason)
    if running.returncode:
        why = reasons[0] if reasons else " | ".join(words)
        raise Sam3dError(f"the training in {processes} processes ended early; its last checkpoint is kept: {why}")


def main(job_file: Path) -> None:
    """Take part in a run; an error is reported in one line, with exit status 1."""
    try:
        job = read_record(TrainingJob, job_file)
        if job is None:
            raise Sam3dError(f"{job_file} does not exist")
    except Sam3dError as error:  # without the job, there is no mark for messages
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from error
    try:
        _take_part(job, job_file.parent)
    except Sam3dError as error:
        _report(job, Message(reason=" ".join(str(error).split())))
        raise typer.Exit(1) from error


def _report(job: TrainingJob, message: Message) -> None:
    """Write a message in one piece, so that the output of other processes does not get into it."""
    sys.stdout.write(message.as_line(job.mark))
    sys.stdout.flush()


def _take_part(job: TrainingJob, folder: Path) -> None:
    model = SAM3D(job.config)
    model.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
    report = fine_tune(
        model,
        job,
        folder,
        progress=lambda log: _report(job, Message(epoch=log)),
        on_step=lambda *step: _report(job, Message(step=step)),
        pause=BusySign(job.busy).wait if job.busy else None,
    )
    if is_main():
        with replacing(folder / DONE) as partial:
            done: _Done = {"weights": model.cpu().state_dict(), "report": report.model_dump(mode="json")}
            torch.save(done, partial)


if __name__ == "__main__":
    typer.run(main)
