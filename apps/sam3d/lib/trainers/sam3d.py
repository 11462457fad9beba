"""Run the library's `Update` on the saved labels for a request to train."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list
from pydantic import BeforeValidator, Field, ValidationError, field_validator

from lib.configs.active_weights import ActiveWeights, unprompted_label
from lib.configs.app_config import AppConfig
from lib.datastores.json_files import load, store
from lib.infers.sam3d import resolve_device
from lib.trainers.cases import labelled_cases
from lib.trainers.stats import STARTED, STATS, LastTraining, StatsFile, TrainStats
from lib.validation import ClientRequest, explain, first_of
from sam3d_label.errors import Sam3dError
from sam3d_label.model_update.report import UpdateReport
from sam3d_label.model_update.shares import KnowledgeSettings
from sam3d_label.model_update.split_ledger import Ledger
from sam3d_label.model_update.update import Update
from sam3d_label.model_update.versions import Versions
from sam3d_label.training import TrainSettings
from sam3d_label.training.busy import BusySign, TrainingSign
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.training.launch import train_in_processes
from sam3d_label.training.run import FineTune
from sam3d_label.weights import Card, Weights, untrained

logger = logging.getLogger(__name__)
MLFLOW = "mlflow is not offered here: the run's log.csv and curves.png are in the folder of its version"


Gpus = Annotated[str, Field(pattern=r"^(all|\d{1,3}(,\d{1,3})*)?$")]
"""`all`, or numbers of GPUs separated by commas."""


class TrainRequest(ClientRequest):
    """The keys of a request to train: those that MONAI Label's own trainers know, with their meaning.

    Attributes:
        name: Name of the run, for people.
        pretrained: Continue from the active version; False starts new adapters on the frozen trunk.
        device: Where to train.
        max_epochs: Epochs to train; without it, the configuration's.
        early_stop_patience: Epochs without a better Dice on the validation cases after which it ends; -1 for none.
        val_split: Share of the cases new to the ledger that are assigned to the validation split.
        train_batch_size: Crops in a step.
        val_batch_size: Accepted, and of no effect: cases are scored one by one.
        multi_gpu: Use all of `gpus` when there are several.
        gpus: Their numbers, separated by commas, or `all`.
        dataset: Accepted; volumes are kept in memory, as with MONAI's CacheDataset.
        dataloader: Accepted, and of no effect.
        tracking: None only.
        tracking_uri: Empty only.
        tracking_experiment_name: Accepted, and of no effect without tracking.
        train_random_seed: Fixes every random choice.
        client_id: The client.
    """

    name: str = "train_01"
    pretrained: bool = True
    device: Annotated[str | None, BeforeValidator(first_of)] = None
    max_epochs: int | None = Field(default=None, ge=1, le=10_000)
    early_stop_patience: int = Field(default=-1, ge=-1, le=10_000)
    val_split: float = Field(default=0.2, ge=0, lt=1)
    train_batch_size: int = Field(default=1, ge=1, le=256)
    val_batch_size: int = Field(default=1, ge=1, le=256)
    multi_gpu: bool = True
    gpus: Gpus = "all"
    dataset: Annotated[Literal["CacheDataset"], BeforeValidator(first_of)] = "CacheDataset"
    dataloader: Annotated[Literal["DataLoader"], BeforeValidator(first_of)] = "DataLoader"
    tracking: Annotated[str | None, BeforeValidator(first_of)] = None
    tracking_uri: Literal[""] | None = ""
    tracking_experiment_name: str = ""
    train_random_seed: int = Field(default=0, ge=0, lt=2**32)
    client_id: str | None = None

    @field_validator("tracking")
    @classmethod
    def _no_tracking(cls, value: str | None) -> str | None:
        if value not in (None, "", "None"):
            raise ValueError(MLFLOW)
        return value


ADDED_BY_THE_SERVER = ("model", "local_rank")
"""Keys that are added to a request on its way to the trainer. The route rejects them when a client sends them."""


def parse_train(request: Mapping[str, object]) -> TrainRequest:
    """Read the body of a request to train.

    Raises:
        Sam3dError: A key is unknown or a value not allowed; the message names it.
    """
    try:
        return TrainRequest.model_validate({key: request[key] for key in request if key not in ADDED_BY_THE_SERVER})
    except ValidationError as error:
        raise Sam3dError(explain(error)) from None


class SAM3DTrainTask(TrainTask):
    """Fine-tunes the adapters on the saved labels, and publishes a candidate that is not worse than the active version.

    Args:
        config: The app's configuration.
        serving: The active weights.
        versions: Where new versions go.
        model_dir: Folder of the run, its stats and the learning curve.
        ledger: File with the split of each case.
    """

    def __init__(
        self, config: AppConfig, serving: ActiveWeights, versions: Versions, model_dir: Path, ledger: Path
    ) -> None:
        super().__init__("Fine-tunes the adapters on the saved labels; publishes a version that is not worse")
        self._app, self._serving, self._versions = config, serving, versions
        self.model_dir, self.ledger = model_dir, ledger

    def config(self) -> dict[str, object]:
        """Return the keys of a request with their defaults, as the viewers show them; lists are choices."""
        hidden = ("client_id", "train_random_seed")
        values = {key: value for key, value in TrainRequest().model_dump().items() if key not in hidden}
        choices = {"device": device_list(), "dataset": ["CacheDataset"], "dataloader": ["DataLoader"]}
        return values | choices | {"tracking": ["None"], "max_epochs": self._app.train_epochs}

    def info(self) -> dict[str, object]:
        """Return the entry of the trainer in `/info/`."""
        return super().info() | {"labels": list(self._app.labels)}

    def stats(self) -> dict[str, object]:
        """Return the state of the latest training as MONAI Label sends it; epoch 0 before the first."""
        return self.latest().as_json()

    def latest(self) -> TrainStats:
        """Return the state of the latest training; epoch 0 before the first."""
        return load(TrainStats, self.model_dir / STATS) or TrainStats(total_epochs=self._app.train_epochs)

    def __call__(self, request: Mapping[str, object], datastore: Datastore) -> dict[str, object]:
        """Train a candidate, compare it, and publish or reject it.

        Args:
            request: The keys of `TrainRequest`.
            datastore: Where images and labels are.

        Returns:
            The report that is stored with the version.

        Raises:
            Sam3dError: The request is wrong, there is no training case, or the training cannot continue.
        """
        asked = parse_train(request)
        stats = StatsFile(self.model_dir / STATS, asked.name, asked.max_epochs or self._app.train_epochs)
        stats.begin()
        try:
            with TrainingSign(self.model_dir).show():
                report = self._update(asked, datastore, stats)
        except Exception as error:
            stats.fail(str(error))
            raise
        stats.end(report)
        logger.info(f"Version {report.version}: {report.gate and report.gate.reason}")
        return report.model_dump(mode="json")

    def _update(self, asked: TrainRequest, datastore: Datastore, stats: StatsFile) -> UpdateReport:
        device = resolve_device(asked.device)
        active = self._versions.latest_activation()
        serving = self._serving.load(device)
        unprompted = unprompted_label(self._app.labels, serving.card)
        cases, skipped = labelled_cases(datastore, self._app.labels, self._app.patient, unprompted)
        self._note_start(datastore)
        sign = BusySign(self.model_dir)
        targets = sum(len(case.targets) for case in cases)
        keeping = self._app.reference_limit is not None and asked.pretrained
        update = Update(
            serving=serving,
            versions=self._versions,
            ledger=Ledger(self.ledger, asked.val_split),
            folder=self.model_dir,
            settings=train_settings(asked, targets, self._app.train_epochs, serving.card, keeping=keeping),
            device=device,
            start=None if asked.pretrained else self._new_adapters(serving.card.preset, device),
            on_begin=lambda waiting: self._note_start(datastore, waiting),
            watch=stats.show,
            pause=sign.wait,
            train=trainer(asked, device, self.model_dir),
            knowledge=knowledge_settings(self._app),
            active=active,
        )
        return update(cases, skipped)

    def _new_adapters(self, preset: str, device: str) -> Weights:
        card = self._serving.load(device).card
        fresh = untrained(preset, self._app.sam_checkpoint, device, intensity=card.intensity, spacing=card.spacing)
        return dataclasses.replace(fresh, card=fresh.card.model_copy(update={"labels": list(self._app.labels)}))

    def _note_start(self, datastore: Datastore, waiting: Collection[str] = ()) -> None:
        """Remember which labels this training sees, so that the automatic one counts those that wait and new ones."""
        labelled = [image for image in datastore.get_labeled_images() if image not in waiting]
        seen = {image: label_time(datastore, image) for image in labelled}
        store(self.model_dir / STARTED, LastTraining(at=time.time(), labels=seen))


def train_settings(
    asked: TrainRequest, targets: int, epochs: int, card: Card, *, keeping: bool = False
) -> TrainSettings:
    """Return the library's settings for a request.

    Args:
        asked: The request.
        targets: Number of labelled targets.
        epochs: Epochs if the request has none.
        card: Card of the weights that training starts from.
        keeping: As `TrainSettings.few_cases` has it.
    """
    return TrainSettings.few_cases(
        targets,
        card,
        keeping=keeping,
        epochs=asked.max_epochs or epochs,
        batch=asked.train_batch_size,
        patience=asked.early_stop_patience if asked.early_stop_patience > 0 else None,
        seed=asked.train_random_seed,
    )


def knowledge_settings(config: AppConfig) -> KnowledgeSettings:
    """Return how much of the earlier knowledge an update must keep."""
    return KnowledgeSettings(config.reference_limit, config.reference_cases, config.reference_seconds)


def trainer(asked: TrainRequest, device: str, model_dir: Path) -> FineTune:
    """Return `fine_tune`, or its replacement for several GPUs."""
    count = torch.cuda.device_count() if asked.multi_gpu and device.startswith("cuda") else 0
    return train_in_processes(count, model_dir) if count > 1 else fine_tune


def label_time(datastore: Datastore, image: str) -> int:
    """Return when the final label of an image was saved, seconds since 1970; 0 if it was not recorded."""
    at = datastore.get_label_info(image, "final").get("ts", 0)
    return int(at) if isinstance(at, int | float) and math.isfinite(at) else 0
