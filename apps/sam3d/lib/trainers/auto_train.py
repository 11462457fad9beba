"""Automatic start of trainings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore

from lib.configs.app_config import AppConfig
from lib.datastores.json_files import load
from lib.errors import RemoteError
from lib.trainers.sam3d import label_time
from lib.trainers.stats import STARTED, LastTraining
from sam3d_label.model_update.started_run import RUN, RUN_FILE

logger = logging.getLogger(__name__)
QUIET = 20.0
"""Seconds after a saved label in which Slicer may start a training itself."""


class AutoTrain:
    """Checks periodically whether a training is due, and starts it.

    It is due when `auto_train_every` labels were saved since the last training, however that was started;
    after the time of day `auto_train_at` when one was saved before it; and once after the server's start when the last
    training was cut off. This state is stored in files, so it survives a restart.

    Args:
        config: The app's configuration.
        model_dir: Folder of the state of trainings.
        datastore: Datastore with the labels.
        is_training: Whether a training is queued or running.
    """

    def __init__(
        self, config: AppConfig, model_dir: Path, datastore: Datastore, is_training: Callable[[], bool]
    ) -> None:
        self._is_training = is_training
        self._every, self._at = config.auto_train_every, config.auto_train_at
        self._model_dir, self._datastore = model_dir, datastore
        self._cut_off = self.is_on and (model_dir / RUN / RUN_FILE).is_file()

    @property
    def is_on(self) -> bool:
        """Whether trainings start by themselves at all."""
        return bool(self._every or self._at)

    def tick(self, start: Callable[[], object]) -> bool:
        """Start a training when one is due and none is queued or running.

        All errors are logged and retried the next time: an exception would end the calling thread, and no training
        would be started any more.

        Args:
            start: Starts it.

        Returns:
            Whether one was started.
        """
        try:
            reason = self.due() if self.is_on else ""
            if not reason or self._is_training():
                return False
            logger.info(f"Training starts automatically: {reason}")
            start()
        except RemoteError as error:
            logger.warning(f"Whether a training is due is unknown: {error}")
            return False
        except HTTPException as error:
            logger.warning(f"The training did not start: {error.detail}")
            return False
        except Exception:
            logger.exception("Whether a training is due could not be found out")
            return False
        self._cut_off = False
        return True

    def due(self) -> str:
        """Return why a training is due; empty when it is not."""
        new = self.new_labels()
        if new and time.time() - max(new) < QUIET:
            return ""
        if self._cut_off:
            return "the last one was interrupted"
        if self._every and len(new) >= self._every:
            return f"{len(new)} labels were saved since the last one"
        if self._at and new and min(new) < last_time(self._at) > self._last().at:
            return f"it was {self._at}, and {len(new)} labels were saved since the last one"
        return ""

    def new_labels(self) -> list[int]:
        """Return when each label was saved that the last training, if any, has not seen; seconds since 1970."""
        seen = self._last().labels
        saved = {image: label_time(self._datastore, image) for image in self._datastore.get_labeled_images()}
        return [at for image, at in saved.items() if seen.get(image) != at]

    def _last(self) -> LastTraining:
        return load(LastTraining, self._model_dir / STARTED) or LastTraining()


def last_time(of_day: str) -> float:
    """Return the last time that it was HH:MM, seconds since 1970."""
    hour, minute = map(int, of_day.split(":"))
    now = datetime.now()
    today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (today if today <= now else today - timedelta(days=1)).timestamp()
