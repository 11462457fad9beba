"""The state that a training run changes: weights, optimizer, schedule, average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from monai.utils import set_determinism
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import StateDict
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from sam3d_label.errors import NewerFormatError, Sam3dError, StorageError, WeightsError
from sam3d_label.io import replacing, require_format, require_space
from sam3d_label.network import PromptableNetwork
from sam3d_label.training.augmentation import IMAGE, LABEL
from sam3d_label.training.dataset import REHEARSED, SALIENT, OpenedCase, TrainingCrops, with_ignored
from sam3d_label.training.distributed import World
from sam3d_label.training.gradients import gradients_of_encoder
from sam3d_label.training.memory.free import free_memory
from sam3d_label.training.memory.plan import Choice, Plan, choose
from sam3d_label.training.run import OnStep
from sam3d_label.training.session import SessionLoss
from sam3d_label.training.settings import TrainSettings
from sam3d_label.training.simulation import validation_dice
from sam3d_label.weights.adapter import freeze_trunk
from sam3d_label.weights.tensors import Tensors

CHECKPOINT_FORMAT = 1
VALIDATION_CLICKS = 3
VALIDATION_FILL = 0.5


class Checkpoint(TypedDict):
    """The state of a run between two epochs.

    Attributes:
        format: Version of this format.
        weights: Trained parameters by name.
        average: Their running averages by name.
        optimizer: State of the optimizer.
        epochs: Log of the run.
        steps: Number of optimizer steps.
        seed: Seed of the run.
        plan: Fields of the memory plan; the first release wrote none.
    """

    format: int
    weights: Tensors
    average: Tensors
    optimizer: StateDict
    epochs: list[Mapping[str, object]]
    steps: int
    seed: int
    plan: Mapping[str, object]


class Trainer:
    """The state of a run, in each of the processes that share it.

    A step is an optimizer step on `settings.batch` crops, of which every process takes its part; the gradients are
    those that one process would have had. Our own loop instead of a framework's: a step simulates sessions of clicks,
    and waits while the server answers a click.

    Args:
        model: The network, already on the device.
        settings: How to train.
        world: The processes.
        pause: Called before the crops that are computed at once: returns when nobody else needs the device.
        teacher: The network before the run, whose answers are rehearsed; None if no case is.

    Raises:
        Sam3dError: There is not enough memory.
    """

    def __init__(
        self,
        model: PromptableNetwork,
        settings: TrainSettings,
        world: World,
        pause: Callable[[], None] | None = None,
        teacher: PromptableNetwork | None = None,
    ) -> None:
        set_determinism(seed=settings.seed)
        self.model, self.settings, self.world, self.pause = model, settings, world, pause or (lambda: None)
        freeze_trunk(model, trunk=not settings.trunk)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, settings.learning_rate_factor)
        self.average = [p.detach().clone() for p in self.trained.values()]
        self._loss = SessionLoss(model, settings, teacher)
        self._use(self._choose())
        self.session: nn.Module = self._loss
        if world.size > 1:
            # A session need not meet every kind of prompt, so that some parameters have no gradient.
            self.session = DistributedDataParallel(self._loss, find_unused_parameters=True)

    @property
    def plan(self) -> Plan:
        """The memory plan."""
        return self.memory.plan

    @property
    def batch(self) -> int:
        """Crops of a step: the requested number, rounded up to a multiple of the number of processes."""
        return -(-self.settings.batch // self.world.size) * self.world.size

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def train_epoch(self, crops: TrainingCrops, epoch: int, on_step: OnStep | None = None) -> float:
        """Train for one epoch; the mean loss of its crops.

        Args:
            crops: Crops to train on.
            epoch: Which epoch, counted from 0.
            on_step: Called after each optimizer step.

        Raises:
            Sam3dError: The loss is no longer finite.
        """
        self.model.train()
        crops.epoch = epoch
        mine = range(self.world.rank, self.settings.steps_per_epoch * self.batch, self.world.size)
        loader = iter(DataLoader(crops, batch_size=1, sampler=mine, num_workers=self.settings.workers))
        part = self.batch // self.world.size
        losses: list[float] = []
        for number, start in enumerate(range(0, len(mine), part)):
            step = list(mine[start : start + part])
            with gradients_of_encoder(self.model, self._reaches_encoder(epoch, number)):
                for first in range(0, part, self.plan.at_once):
                    together = step[first : first + self.plan.at_once]
                    rngs = [np.random.default_rng([self.settings.seed, epoch, index, 1]) for index in together]
                    crops_together = [next(loader) for _ in together]
                    last = first + self.plan.at_once >= part
                    losses += self._accumulate(crops_together, rngs, part, last=last)
            self._step()
            if on_step:
                on_step(epoch, number + 1, self.settings.steps_per_epoch)
        return float(np.mean(self.world.gather(float(np.mean(losses)))))

    def _reaches_encoder(self, epoch: int, number: int) -> bool:
        """Return whether the gradients of a step reach the encoder: the same in every process."""
        rng = np.random.default_rng([self.settings.seed, epoch, number, 2])
        return bool(rng.random() < self.settings.encoder_share)

    def _accumulate(
        self, crops: Sequence[dict[str, Tensor]], rngs: Sequence[np.random.Generator], part: int, *, last: bool
    ) -> list[float]:
        """Add the gradients of some crops, of `part` in this process and step; their losses."""
        self.pause()
        images, labels = (torch.cat([crop[key] for crop in crops]).to(self.world.device) for key in (IMAGE, LABEL))
        session = self.session
        with session.no_sync() if isinstance(session, DistributedDataParallel) and not last else nullcontext():
            salient, rehearsed = ([bool(crop[flag]) for crop in crops] for flag in (SALIENT, REHEARSED))
            losses = self.session(images, labels, salient, rngs, rehearsed)
            if not torch.isfinite(losses).all():
                raise Sam3dError("the loss is no longer finite: lower the learning rate, or train in fp32")
            (losses.sum() / part).backward()
        return losses.detach().tolist()

    def _step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.trained.values(), self.settings.clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._update_average()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Update the running average; its decay is smaller in the first steps, so that they are forgotten sooner."""
        steps = self.schedule.last_epoch
        decay = min(self.settings.average, (1 + steps) / (10 + steps))
        get_ema_multi_avg_fn(decay)(self.average, list(self.trained.values()), steps)

    @torch.no_grad()
    def validate(self, cases: Sequence[OpenedCase]) -> list[float]:
        """Return the mean Dice of the average after each of `VALIDATION_CLICKS` clicks, on one crop per case."""
        self.model.eval()
        with self._averaged():
            mine = [self._score(cases[index]) for index in range(self.world.rank, len(cases), self.world.size)]
        scores = [score for part in self.world.gather(mine) for score in part]
        return np.mean(scores, axis=0).tolist()

    def _score(self, case: OpenedCase) -> list[float]:
        self.pause()
        crop = case.crop(case.frame(self.model.config.crop, VALIDATION_FILL, np.zeros(3)))
        image, truth = crop[IMAGE][None].to(self.world.device), with_ignored(crop)[None].to(self.world.device)
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.plan.bf16):
            return validation_dice(self.model, self.model.encode(image), truth, self.settings, VALIDATION_CLICKS)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Yield the model with the running average for its weights."""
        current = [p.detach().clone() for p in self.trained.values()]
        self._set_weights(self.average)
        try:
            yield
        finally:
            self._set_weights(current)

    def finish(self) -> None:
        """End the run: the model keeps the average."""
        self._set_weights(self.average)
        self.model.eval()

    @torch.no_grad()
    def _set_weights(self, values: Iterable[Tensor]) -> None:
        for parameter, value in zip(self.trained.values(), values, strict=True):
            parameter.copy_(value)

    def save(self, path: Path, logs: Sequence[Mapping[str, object]]) -> None:
        """Write all that `restore` needs, whole or not at all.

        Args:
            path: The checkpoint.
            logs: The run's log so far.

        Raises:
            WeightsError: It cannot be written.
        """
        state: Checkpoint = {
            "format": CHECKPOINT_FORMAT,
            "weights": {name: p.detach() for name, p in self.trained.items()},
            "average": dict(zip(self.trained, self.average, strict=True)),
            "optimizer": self.optimizer.state_dict(),
            "epochs": list(logs),
            "steps": self.schedule.last_epoch,
            "seed": self.settings.seed,
            "plan": asdict(self.plan),
        }
        try:
            with replacing(path) as temporary:
                torch.save(state, temporary)
        except StorageError:
            raise
        except (OSError, RuntimeError) as error:  # PyTorch reports a full disk as a RuntimeError
            require_space(path, error)
            raise WeightsError(f"{path} cannot be written: {error}") from error

    def restore(self, path: Path) -> list[Mapping[str, object]]:
        """Restore the state that the main process reads; return the log up to it.

        Raises:
            WeightsError: There is no checkpoint, it cannot be read, or it belongs to another run.
        """
        state = self.world.from_main(lambda: self._read(path))
        self._set_weights(state["weights"][name] for name in self.trained)
        self.average = [state["average"][name].to(self.world.device) for name in self.trained]
        self.optimizer.load_state_dict(state["optimizer"])
        # Not `LambdaLR.load_state_dict`: checkpoints hold the steps only, from which the rate follows.
        self.schedule.last_epoch = state["steps"]
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self.settings.learning_rate_factor(state["steps"])
        if "plan" in state:
            self._use(self._choose(TypeAdapter(Plan).validate_python(state["plan"])))
        return state["epochs"]

    def _use(self, choice: Choice) -> None:
        self.memory = choice
        self.model.checkpoint_activations(choice.plan.checkpointing)
        self._loss.bf16 = choice.plan.bf16

    def _choose(self, earlier: Plan | None = None) -> Choice:
        """Return how memory is used: in every process as the one with the least of it can."""
        free = [free for free in self.world.gather(free_memory(self.world.device)) if free is not None]
        return choose(
            self.model,
            self.settings,
            self.world.device,
            part=self.batch // self.world.size,
            free=min(free) if free else None,
            earlier=earlier,
        )

    def _read(self, path: Path) -> Checkpoint:
        if not path.is_file():
            raise WeightsError(f"{path} does not exist: there is nothing to resume")
        try:
            state: Checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            require_format(state.get("format"), CHECKPOINT_FORMAT, path)
            names, seed = state["weights"].keys(), state["seed"]
            complete = {"average", "optimizer", "epochs", "steps"} <= state.keys()
        except NewerFormatError:
            raise
        except Exception as error:
            raise WeightsError(f"{path} cannot be read, remove it to start afresh: {error}") from error
        if names != self.trained.keys() or seed != self.settings.seed or not complete:
            raise WeightsError(f"{path} belongs to a run with other settings: remove it to start afresh")
        return state
