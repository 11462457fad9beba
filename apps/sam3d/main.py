"""The MONAI Label app: `monailabel start_server --app apps/sam3d --studies FOLDER`."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import schedule
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from lib.activelearning.idle import Idleness
from lib.activelearning.strategies import ScoreFile, VolumeScoring, make_strategies
from lib.background import end_with_server, is_background
from lib.configs.active_weights import ActiveWeights, UntrainedError
from lib.configs.app_config import AppConfig, parse_config
from lib.datastores.open_dicomweb import open_dicom_web
from lib.datastores.studies import EXTENSIONS, SafeDatastore, check_id
from lib.datastores.studies_folder import check_studies
from lib.errors import HANDLED, http_error, install_error_handlers
from lib.infers.answer import InferResult
from lib.infers.batch import SafeBatch, check_batch
from lib.infers.click_notes import ClickNotes, RequestNote
from lib.infers.open_volumes import Segmenters
from lib.infers.sam3d import SAM3DAutoTask, SAM3DInferTask, VolumeTask, resolve_device
from lib.patches.monai_label import install
from lib.requests import saves_label
from lib.server import listen
from lib.server.access.login import Login, make_login
from lib.server.inference_pool import InferencePool, worker_count
from lib.server.log_privacy import protect_logs
from lib.server.metrics import Metrics
from lib.server.routes import cases, page
from lib.server.tasks import Tasks
from lib.server.uploads.sessions import SafeSessions
from lib.server.user_shares import UserShares
from lib.trainers.auto_train import QUIET, AutoTrain
from lib.trainers.sam3d import SAM3DTrainTask, parse_train
from sam3d_label import __version__
from sam3d_label.image.limits import MIB, set_default_limits
from sam3d_label.io import is_writable, remove_parts
from sam3d_label.model_update import split_ledger
from sam3d_label.model_update.versions import Versions
from sam3d_label.segmentation.precision import chosen_precision
from sam3d_label.studies import click_log
from sam3d_label.training.busy import BusySign

logger = logging.getLogger(__name__)
POLL_SECONDS = 30
"""Seconds between two checks whether a training is due."""


class SAM3DApp(MONAILabelApp):
    """Click-to-mask segmentation of 3D volumes for OHIF, Slicer and MONAI Label's own client."""

    @listen.refuse_on_errors
    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, object]) -> None:
        end_with_server()
        if not is_background():
            protect_logs()
        self.config = parse_config(conf)
        chosen_precision()
        set_default_limits(self.config.volumes)
        self.login = _login(self.config)
        listen.check_prefix(settings.MONAI_LABEL_API_STR)
        address = listen.prepare(self.login is not None, self.config.trusted_proxies)
        self.hosts = listen.own_hosts(address, self.config.allowed_hosts)
        self.model_dir = self.config.model_dir or Path(app_dir, "model")
        remove_parts(self.model_dir)
        self.versions = Versions(self.model_dir / "versions")
        self.serving = ActiveWeights(self.config, self.versions)
        self.segmenters = Segmenters(self.serving, self.config.cache_mb * MIB)
        self.busy = BusySign(self.model_dir)
        self.idle = Idleness(self.model_dir, self.config.idle_seconds)
        self.pool = InferencePool(
            lambda device: (
                self.config.infer_workers or max(settings.MONAI_LABEL_INFER_CONCURRENCY, 0) or worker_count(device)
            ),
            self.config.infer_queue,
        )
        self.readers = UserShares.halves(self.config.max_readers)
        self.savers = UserShares.halves(max(1, self.config.max_readers // 2))
        self.scores = ScoreFile(self.model_dir)
        self.tasks = Tasks(self._after_training, self.idle)
        log = click_log.ClickLog(self.model_dir / click_log.FOLDER) if self.config.click_log else None
        self.metrics = Metrics(settings.MONAI_LABEL_API_STR)
        self.clicks = ClickNotes(log, self.config.labels, self.metrics.inference)
        self.trainer = SAM3DTrainTask(
            self.config, self.serving, self.versions, self.model_dir, ledger_file(studies, self.model_dir)
        )
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=dict(conf),
            name="SAM3D",
            description="3D segmentation from clicks",
            version=__version__,
            labels=list(self.config.labels),
        )
        self.auto_train = AutoTrain(self.config, self.model_dir, self.datastore(), self.tasks.train.is_busy)

    def init_datastore(self) -> Datastore:
        """Open a checked folder for a path or a DICOMweb server for a URL; leave XNAT and DSA to MONAI Label."""
        if is_url(self.studies):
            remote = settings.MONAI_LABEL_DATASTORE.lower() in ("xnat", "dsa")
            return super().init_datastore() if remote else open_dicom_web(self.studies, self.config)
        check_studies(Path(self.studies), must_exist=is_background())
        return SafeDatastore(
            self.studies,
            extensions=[f"*{extension}" for extension in EXTENSIONS],
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Return the models; a model whose weights are untrained rejects requests with the reason."""
        try:
            self.serving(resolve_device(None))
        except UntrainedError as error:
            logger.warning(error)
        return {
            "sam3d": SAM3DInferTask(self.segmenters, self.busy, self.config.labels),
            "sam3d_auto": SAM3DAutoTask(self.segmenters, self.busy, self.config.labels),
        }

    def models(self) -> dict[str, VolumeTask]:
        """Return the models by name, whether they have weights or not."""
        return dict(self._infers)

    def init_trainers(self) -> dict[str, TrainTask]:
        """Return the one trainer."""
        return {"sam3d": self.trainer}

    def init_batch_infer(self) -> BatchInferTask:
        """Return the task for batch inference."""
        return SafeBatch()

    def init_strategies(self) -> dict[str, Strategy]:
        """Return the strategies that choose the next image to label."""
        return make_strategies(self.scores, self.config.next_sample)

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Return the methods that score the images in the background for the strategies."""
        return {"sam3d": VolumeScoring(self.serving, self.segmenters, self.scores, self.idle)}

    def trainers(self) -> Mapping[str, TrainTask]:
        """Trainers by name."""
        return self._trainers

    def scoring_methods(self) -> Mapping[str, ScoringMethod]:
        """Scoring methods by name."""
        return self._scoring_methods

    def async_scoring(self, method: str | None, params: object = None) -> dict[str, object]:
        """Score in the background, unless a scoring already waits for its turn.

        Only the server starts it, also after a training; the process of the training does not.
        """
        if not self._server_mode or self.tasks.scoring.is_waiting():
            return {}
        names = [method] if method else list(self._scoring_methods)
        return {name: self.tasks.scoring.submit({"method": name}, enqueue=True).model_dump() for name in names}

    def _after_training(self) -> None:
        if self._auto_update_scoring:
            self.async_scoring(None)

    def _start_training(self) -> None:
        self.tasks.train.submit({"model": "sam3d"})

    def _load_sessions(self, load: bool = False) -> SafeSessions | None:
        if not load:
            return None
        return SafeSessions(settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY, self.config)

    def on_init_complete(self) -> None:
        """Start the periodic jobs; install the app's checks and error responses in the server."""
        self.busy.show_briefly()
        super().on_init_complete()
        server = sys.modules.get("monailabel.app")
        if server is not None:
            install_error_handlers(server.app)
            install(self, server.app, settings.MONAI_LABEL_API_STR)
            for routes in (page, cases):
                server.app.include_router(routes.router(self), prefix=settings.MONAI_LABEL_API_STR)
        if self.auto_train.is_on:
            schedule.every(POLL_SECONDS).seconds.do(self.auto_train.tick, self._start_training)

    def on_save_label(self, image_id: str, label_id: str) -> None:
        """Check whether training is due, after a delay in which Slicer may start its own."""
        super().on_save_label(image_id, label_id)
        if self.auto_train.is_on:
            soon = threading.Timer(QUIET + 1, self.auto_train.tick, [self._start_training])
            soon.daemon = True
            soon.start()

    def infer(self, request: Mapping[str, object], datastore: Datastore | None = None) -> InferResult:
        """Run a model on an image of the datastore or of a session.

        Args:
            request: `model`, `image` (an id) or `session`, and the client's `params`, which may replace them.
            datastore: Another datastore than the app's.

        Returns:
            `file` and `label` (path of the mask, or the saved label's id), `tag` and `params`.

        Raises:
            HTTPException: 404 for an unknown model, image or session, 400 for any other error of the client.
        """
        with self.clicks.record(request) as note:
            return self._infer(request, datastore or self.datastore(), note)

    def _infer(self, request: Mapping[str, object], store: Datastore, note: RequestNote) -> InferResult:
        try:
            task = note.task = self._task(request.get("model"))
            path = note.path = self._session_image(request) or self._stored_image(request, store)
        except HANDLED as error:
            raise http_error(error) from error
        try:
            session = request.get("session")
            name = session.get("name") if isinstance(session, Mapping) else request.get("image")
            file, params = task({**request, "image": path, "image_id": name, "description": task.description})
            note.answer = params
        except HANDLED as error:
            described = http_error(error)
            name = os.path.basename(path)
            described.detail = described.detail.replace(path, name).replace(name, f"Image {name}", 1)
            raise described from error
        tag = str(request.get("label_tag") or DefaultLabelTag.ORIGINAL.value)
        label = file
        if saves_label(request) and not request.get("session"):
            listed = [{"name": name, "idx": value} for name, value in params["label_names"].items()]
            info = {"model": request["model"], "params": params, "label_info": listed}
            label = store.save_label(request["image"], file, tag, info)
        return {"label": label, "tag": tag, "file": file, "params": params}

    def batch_infer(self, request: Mapping[str, object], datastore: Datastore | None = None) -> dict[str, object]:
        """Run a model on many images and save the masks as labels.

        Args:
            request: `model`, and the keys of `lib.requests.Batch`.
            datastore: Another datastore than the app's.

        Returns:
            By image: `label`, `tag` and `params`, or `error`, which says why there is none.

        Raises:
            HTTPException: 404 for an unknown model, 400 for a request that would fail on every image.
        """
        self.check_batch(request)
        try:
            return dict(super().batch_infer(request, datastore))
        except HANDLED as error:
            raise http_error(error) from error

    def check_batch(self, request: Mapping[str, object]) -> None:
        """Reject a request for batch inference that would fail on every image.

        Raises:
            HTTPException: 404 for an unknown model, 400 for a wrong value.
        """
        try:
            self._task(request.get("model")).require_unprompted()
            check_batch(request)
        except HANDLED as error:
            raise http_error(error) from error

    def train(self, request: Mapping[str, object]) -> dict[str, object]:
        """Train and compare, in this process.

        Args:
            request: `model`, and the keys of `lib.trainers.sam3d.TrainRequest`.

        Raises:
            HTTPException: 404 for an unknown trainer, 400 for any other error, or if there is no training case.
        """
        self.check_train(request)
        try:
            return dict(super().train(request))
        except HANDLED as error:
            raise http_error(error) from error

    def check_train(self, request: Mapping[str, object]) -> None:
        """Reject a request to train that would fail.

        Raises:
            HTTPException: 404 for an unknown trainer, 400 for a wrong value.
        """
        model = request.get("model")
        if model not in self._trainers:
            raise HTTPException(404, f"There is no trainer {model!r}; this server has: {', '.join(self._trainers)}")
        try:
            resolve_device(parse_train(request).device)
        except HANDLED as error:
            raise http_error(error) from error

    def _task(self, model: object) -> VolumeTask:
        if model not in self._infers:
            known = ", ".join(self._infers) or "none"
            raise HTTPException(404, f"There is no model {model!r}; this server offers: {known}")
        return self._infers[model]

    def _session_image(self, request: Mapping[str, object]) -> str:
        """Return the path of the image of the session, which must exist; empty when the request has none."""
        session = request.get("session")
        if not isinstance(session, Mapping) or self._sessions is None:
            return ""
        return str(self._sessions.get_session(str(session.get("name"))).image)

    def _stored_image(self, request: Mapping[str, object], store: Datastore) -> str:
        image = request.get("image")
        if not isinstance(image, str) or not image:
            raise HTTPException(400, "No image: give the id of a stored image, or a session_id")
        if os.path.isabs(image) or os.path.basename(image) != image:
            raise HTTPException(400, "An image is named by its id, not by a path: upload it first, as a session")
        path = store.get_image_uri(check_id(image))
        if not path or not os.path.exists(path):
            raise HTTPException(404, f"There is no image {image!r} in the datastore")
        return path


def is_url(studies: str) -> bool:
    """Return whether the studies are on another server."""
    return studies.startswith(("http://", "https://"))


def ledger_file(studies: str, model_dir: Path) -> Path:
    """Return the file that stores the split of cases.

    It is in the studies folder; for a URL, and for a folder that is read-only and has none, in the model folder. One
    that exists stays in use, so that no case changes its split when the folder becomes writable.
    """
    ours = model_dir / f"ledger-{hashlib.sha256(studies.rstrip('/').encode()).hexdigest()[:12]}.json"
    theirs = Path(studies, ".sam3d", split_ledger.FILE)
    if is_url(studies) or (not theirs.exists() and (ours.exists() or not is_writable(Path(studies)))):
        return ours
    return theirs


def _login(config: AppConfig) -> Login | None:
    """Return the server's login; background tasks have none."""
    if is_background():
        return None
    return make_login(config.api_keys, config.login_hours, settings)
