"""The page at /sam3d/: its files, and what it shows of learning: curve, versions, training, ledger, next images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse
from monailabel.interfaces.datastore import Datastore
from pydantic import BaseModel

from lib.activelearning.strategies import ScoreFile
from lib.configs.active_weights import ActiveWeights, unprompted_label
from lib.configs.app_config import AppConfig
from lib.datastores.dicomweb import DicomWebDatastore
from lib.errors import HANDLED, http_error
from lib.infers.sam3d import VolumeTask
from lib.server.access.identity import LOCAL_USER, Identity, Role
from lib.server.tasks import Task, Tasks
from lib.trainers.auto_train import AutoTrain
from lib.trainers.sam3d import SAM3DTrainTask
from lib.trainers.stats import TrainStats
from sam3d_label.model_update import learning_curve
from sam3d_label.model_update.report import ReferenceReport, UpdateReport
from sam3d_label.model_update.split_ledger import Ledger, counts
from sam3d_label.model_update.versions import INITIAL, Versions
from sam3d_label.weights.card import ABILITIES, Card, lost
from sam3d_label.weights.locations import CARD

FILES = Path(__file__).resolve().parents[3] / "page"
PARTS = {path.relative_to(FILES).as_posix(): path for path in sorted(FILES.glob("*/*.*"))}
"""Modules, styles and licences of the page by their path below /sam3d/page/."""

VENDOR = "vendor/"
"""Folder of the files whose name has their version, so that browsers may keep them."""

KEEP = {"Cache-Control": "private, max-age=31536000, immutable"}
NEXT = 8
"""Unlabelled images that the page lists."""


class PageApp(Protocol):
    """The parts of the app that the page shows."""

    config: AppConfig
    serving: ActiveWeights
    versions: Versions
    scores: ScoreFile
    auto_train: AutoTrain
    model_dir: Path
    trainer: SAM3DTrainTask
    tasks: Tasks

    def datastore(self) -> Datastore:
        """Return images and labels."""

    def models(self) -> Mapping[str, VolumeTask]:
        """Models by name."""


class RollbackRequest(BaseModel):
    """A version to activate again; without one, the version that was active before."""

    version: str | None = None


def router(app: PageApp) -> APIRouter:
    """Return the page and its data. Roles are in `server.access.roles`.

    Args:
        app: What it shows.
    """
    routes = APIRouter(prefix="/sam3d", tags=["SAM3D"])

    @routes.get("/", include_in_schema=False)
    def start() -> FileResponse:
        return FileResponse(FILES / "index.html")

    @routes.get("/page.css", include_in_schema=False)
    def style() -> FileResponse:
        return FileResponse(FILES / "page.css")

    @routes.get("/page/{part:path}", include_in_schema=False)
    def module(part: str) -> FileResponse:
        if part not in PARTS:
            raise HTTPException(404, f"The page has no file {part[:100]!r}")
        return FileResponse(PARTS[part], headers=KEEP if part.startswith(VENDOR) else None)

    @routes.get("/state", summary="Versions, ledger, training and next images")
    def state(request: Request) -> dict[str, object]:
        identity: Identity = getattr(request.state, "identity", LOCAL_USER)
        user = {"user": None if identity.anonymous else identity.name, "admin": identity.role >= Role.ADMIN}
        return {**_answer(lambda: describe(app)), **user}

    @routes.get("/progress", summary="How far a model is with an image, or with the volume of a session")
    def progress(model: str, image: str = "", session_id: str = "") -> dict[str, object]:
        return running(app, model, session_id or image)

    @routes.get("/training", summary="The latest training and how it ended")
    def training() -> dict[str, object]:
        return _answer(lambda: latest_training(app))

    @routes.post("/rollback", summary="Activate an earlier version again")
    def rollback(wanted: RollbackRequest) -> dict[str, str]:
        return _answer(lambda: {"version": app.versions.rollback(wanted.version, "the page")})

    @routes.get("/learning_curve.csv", summary="What each training reached", response_class=FileResponse)
    def table() -> FileResponse:
        return _existing(app.model_dir / learning_curve.TABLE)

    @routes.get("/learning_curve.png", summary="The same, drawn", response_class=FileResponse)
    def picture() -> FileResponse:
        return _existing(app.model_dir / learning_curve.PICTURE)

    @routes.get("/versions/{version}/card.json", summary="A version's card", response_class=FileResponse)
    def card(version: str) -> FileResponse:
        return _existing(_answer(lambda: app.versions.path(version)) / CARD)

    return routes


def describe(app: PageApp) -> dict[str, object]:
    """Return the content of the page as JSON.

    Raises:
        Sam3dError: A file of versions or ledger is damaged.
    """
    weights = app.serving.load()
    current = app.versions.current()
    can_search = "no_click" in weights.card.capabilities
    return {
        "serving": {
            "version": current or INITIAL,
            "weights": weights.version,
            "preset": weights.card.preset,
            "capabilities": weights.card.capabilities,
            "before": app.versions.previous() if current else None,
            "licence": weights.card.licence,
            "data": [source.model_dump() for source in weights.card.training.data],
            "date": weights.card.date,
            "candidates": weights.card.config.candidates,
            "automatic": unprompted_label(app.config.labels, weights.card) if can_search else None,
        },
        "versions": [_version(app.versions, name, current, weights.card) for name in reversed(app.versions.names())],
        "history": [entry.model_dump() for entry in app.versions.history()],
        "curve": [row.cells() for row in learning_curve.read(app.model_dir)],
        "ledger": _ledger(app),
        "training": _training(app),
        "next": _next(app),
        "labels": list(app.config.labels),
        "pacs": isinstance(app.datastore(), DicomWebDatastore),
    }


def running(app: PageApp, model: str, image: str) -> dict[str, object]:
    """Describe what a model is doing with an image.

    Returns:
        `running`, and while that is true `done` and `total`, the crops of the volume; `total` is 0 before it is open.

    Raises:
        HTTPException: 404; there is no such model.
    """
    models = app.models()
    if model not in models:
        raise HTTPException(404, f"There is no model {model[:100]!r}; this server offers: {', '.join(models)}")
    state = models[model].progress(image)
    return {"running": state is not None, **(dataclasses.asdict(state) if state else {})}


def latest_training(app: PageApp) -> dict[str, object]:
    """Describe the latest training of this server, without reading images or labels.

    Returns:
        `id` and `status` of the task; how far it is: `epoch`, `total_epochs` and `best_metric`; and of one that has
        ended: `version`, `passes` and `reason` as the gate reported them, or `error`. Before the first training, all
        but `epoch`, which is 0, are None.
    """
    latest, known = _latest_training(app)
    is_running = latest is not None and not latest.is_over
    stats = known if latest and latest.is_over else TrainStats()
    return {
        "id": latest and latest.id,
        "status": latest and latest.status,
        "epoch": known.epoch if is_running else 0,
        "total_epochs": known.total_epochs if is_running else None,
        "best_metric": app.trainer.latest().best_metric,
        "version": stats.version,
        "passes": stats.gate and stats.gate.passes,
        "reason": stats.gate and stats.gate.reason,
        "error": stats.error,
    }


def _version(versions: Versions, name: str, current: str | None, active: Card) -> dict[str, object]:
    report = versions.report(name) or UpdateReport()
    card = Card.read(versions.path(name) / CARD)
    manual_activation = versions.manual_activation(name)
    return {
        "version": name,
        "serves": name == current,
        "at": report.at,
        "annotated": report.annotated,
        "means": report.means,
        "share": report.share,
        "shares": [each.model_dump() for each in report.shares],
        "reference": _reference(report.reference),
        "passes": report.gate and report.gate.passes,
        "reason": report.gate and report.gate.reason,
        "against_gate": manual_activation and manual_activation.model_dump(include={"at", "by"}),
        "capabilities": card.capabilities,
        "lost": [ABILITIES[capability] for capability in lost(card, active)],
        "skipped": report.skipped,
        "seconds": report.seconds,
    }


def _reference(report: ReferenceReport | None) -> dict[str, object] | None:
    """Describe how a version compares on the reference set; None where it was not measured."""
    if report is None:
        return None
    return {
        "limit": report.limit,
        "baseline_version": report.baseline_version,
        "kinds": {change.kind: {"before": change.before, "after": change.after} for change in report.changes},
    }


def _ledger(app: PageApp) -> dict[str, object]:
    ledger, store = Ledger(app.trainer.ledger), app.datastore()
    images = store.list_images()
    return {
        "images": len(images),
        "labelled": len(store.get_labeled_images()),
        "counts": counts(entry.side for entry in ledger.entries.values()),
        "cases": [{"case": case, **entry.model_dump()} for case, entry in sorted(ledger.entries.items())],
    }


def _latest_training(app: PageApp) -> tuple[Task | None, TrainStats]:
    """Return the latest training of this server and its state, which is empty until it begins to report."""
    latest, known = next(iter(app.tasks.train.tasks()[-1:]), None), app.trainer.latest()
    reports = known.start_ts is not None and known.total_time is None  # else they are those of an earlier one
    return latest, known if latest is None or latest.is_over or reports else TrainStats()


def _training(app: PageApp) -> dict[str, object]:
    (latest, stats), auto = _latest_training(app), app.auto_train
    return {
        "status": latest and latest.status,
        "stats": stats.as_json(),
        "new_labels": len(auto.new_labels()),
        "every": app.config.auto_train_every,
        "at": app.config.auto_train_at,
    }


def _next(app: PageApp) -> list[dict[str, object]]:
    scores = app.scores.read()
    unlabelled = app.datastore().get_unlabeled_images()
    scored = [
        {"image": image, "doubt": scores[image].doubt, "version": scores[image].version}
        for image in unlabelled
        if image in scores
    ]
    return sorted(scored, key=lambda entry: -float(entry["doubt"]))[:NEXT]


Result = TypeVar("Result")


def _answer(work: Callable[[], Result]) -> Result:
    """Return the result of a call, with its errors converted to HTTP errors."""
    try:
        return work()
    except HANDLED as error:
        raise http_error(error) from error


def _existing(path: Path) -> FileResponse:
    if not path.is_file():
        raise HTTPException(404, f"There is no {path.name} yet: it comes with the first training")
    return FileResponse(path)
