"""The parts of the app that the routes use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from monailabel.interfaces.datastore import Datastore

from lib.activelearning.strategies import Chosen
from lib.configs.app_config import AppConfig
from lib.server.tasks import Tasks
from lib.server.user_shares import UserShares


class App(Protocol):
    """The parts of `SAM3DApp` behind the routes."""

    config: AppConfig
    readers: UserShares
    savers: UserShares
    tasks: Tasks

    def info(self) -> dict[str, object]:
        """Return the response of `/info/`."""

    def datastore(self) -> Datastore:
        """Return images and labels."""

    def trainers(self) -> Mapping[str, object]:
        """Trainers by name."""

    def scoring_methods(self) -> Mapping[str, object]:
        """Scoring methods by name."""

    def check_train(self, request: Mapping[str, object]) -> None:
        """Reject a request to train that would fail."""

    def check_batch(self, request: Mapping[str, object]) -> None:
        """Reject a request for batch inference that would fail."""

    def train(self, request: Mapping[str, object]) -> dict[str, object]:
        """Train in this process."""

    def batch_infer(self, request: Mapping[str, object], datastore: Datastore | None = None) -> dict[str, object]:
        """Run a model on many images in this process."""

    def scoring(self, request: Mapping[str, object], datastore: Datastore | None = None) -> dict[str, object]:
        """Score images in this process."""

    def next_sample(self, request: Mapping[str, object]) -> Chosen:
        """Choose the next image to label."""

    def on_save_label(self, image_id: str, label_id: str) -> Mapping[str, object] | None:
        """React to a saved label; return what to add to the answer."""

    def model_file(self, model: str, validate: bool = True) -> str | None:
        """File of a model's weights that may be downloaded."""

    def model_info(self, model: str) -> dict[str, object] | None:
        """Checksum and time of that file."""
