"""`/sam3d/health` and `/sam3d/metrics`, for load balancers, service managers and Prometheus."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from fastapi import APIRouter, Response
from monailabel.config import settings
from monailabel.interfaces.datastore import Datastore
from prometheus_client import CONTENT_TYPE_LATEST

from lib.configs.active_weights import ActiveWeights, UntrainedError
from lib.configs.app_config import AppConfig
from lib.infers.open_volumes import Segmenters
from lib.infers.sam3d import resolve_device
from lib.server.health import Health, Probe, Readiness, UnhealthyError, listed, moving, space, writable
from lib.server.inference_pool import InferencePool
from lib.server.metrics import AppState, Metrics
from lib.server.tasks import Tasks


class HealthApp(Protocol):
    """The parts of the app that are checked."""

    config: AppConfig
    metrics: Metrics
    model_dir: Path
    pool: InferencePool
    segmenters: Segmenters
    serving: ActiveWeights
    studies: str
    tasks: Tasks

    def datastore(self) -> Datastore:
        """Return images and labels."""


def router(app: HealthApp) -> APIRouter:
    """Return the two routes, and the liveness route.

    Args:
        app: The app to check and measure.
    """
    routes = APIRouter(prefix="/sam3d", tags=["SAM3D"])
    readiness = Readiness(probes(app))
    tasks, cache = app.tasks, app.segmenters.cache
    app.metrics.registry.register(AppState(cache, app.model_dir, lambda: background_tasks(tasks), app.pool.states))

    @routes.get(
        "/health",
        summary="Whether the server can do its work",
        responses={503: {"model": Health}},
        response_model=Health,
    )
    def health(response: Response) -> Health:
        report = readiness.report()
        response.status_code = 200 if report.ready else 503
        response.headers["Cache-Control"] = "no-store"
        return report

    @routes.get("/health/live", summary="Whether the process answers")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/metrics", summary="Metrics in Prometheus' text format", response_class=Response)
    def metrics() -> Response:
        return Response(app.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return routes


def probes(app: HealthApp) -> dict[str, Probe]:
    """Return the checks of an app by name.

    Args:
        app: The app to check.
    """
    local = not app.studies.startswith(("http://", "https://"))
    folders = {"models": app.model_dir, "temporary files": Path(tempfile.gettempdir())}
    found: dict[str, Probe] = {"weights": weights(app.serving), "datastore": listed(app.datastore)}
    if local:
        folders["studies"] = Path(app.studies)
        if not settings.MONAI_LABEL_DATASTORE_READ_ONLY:
            found["labels"] = writable(Path(app.studies))
    found["models"] = writable(app.model_dir)
    found["disk"] = space(folders, app.config.min_free_mb)
    found["queue"] = moving(app.pool.oldest_seconds)
    return found


def weights(serving: ActiveWeights) -> Callable[[], None]:
    """Check that the active weights accept clicks.

    Args:
        serving: Returns the weights on a device.
    """

    def probe() -> None:
        try:
            serving(resolve_device(None))
        except UntrainedError as error:
            raise UnhealthyError("no weights have learned clicks yet: train, or choose others") from error

    return probe


def background_tasks(tasks: Tasks) -> Mapping[str, Iterable[str]]:
    """Return the status of each background task, by kind."""
    return {queue.kind: [task.status for task in queue.tasks()] for queue in tasks}
