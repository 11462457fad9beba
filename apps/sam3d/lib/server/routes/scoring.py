"""`/scoring/`: score images in the background, for the strategies that choose the next one."""

from typing import Annotated

from fastapi import APIRouter, HTTPException
from pydantic import BeforeValidator

from lib.infers.sam3d import resolve_device
from lib.server.routes.app_protocol import App
from lib.server.routes.requests_to_all import body_to_all, request_to_each
from lib.server.routes.train import shown
from lib.server.tasks import Task
from lib.trainers.sam3d import Gpus
from lib.validation import ClientRequest, first_of


class ScoringRequest(ClientRequest):
    """Keys of a request to score images.

    Attributes:
        device: Where to compute.
        gpus: Numbers of the GPUs that may be used, separated by commas, or `all`.
        client_id: The client.
    """

    device: Annotated[str | None, BeforeValidator(first_of)] = None
    gpus: Gpus = "all"
    client_id: str | None = None


def router(app: App) -> APIRouter:
    """Return the routes under `/scoring`.

    Args:
        app: Has the scoring methods.
    """
    routes = APIRouter(prefix="/scoring", tags=["Scoring"])
    queue = app.tasks.scoring
    names = list(app.scoring_methods())
    body_of_all = body_to_all("ScoringAllRequest", ScoringRequest, names)

    def start(method: str, body: ScoringRequest | None, run_sync: bool, enqueue: bool) -> Task | dict[str, object]:
        resolve_device(body.device if body else None)
        request = {"method": method, **(body.given() if body else {})}
        if run_sync:
            with queue.here(enqueue=enqueue):
                return app.scoring(request)
        return queue.submit(request, enqueue=enqueue)

    @routes.get("/", summary="Status of the scoring", response_model_exclude_none=True)
    def status(all: bool = False, check_if_running: bool = False) -> Task | list[Task]:
        return queue.status(all_tasks=all, check_if_running=check_if_running)

    @routes.post("/", summary="Run all scoring methods", include_in_schema=False, deprecated=True)
    def run_all(
        body: body_of_all | None = None,  # type: ignore[valid-type]  # made at run time
        run_sync: bool = False,
    ) -> dict[str, object]:
        return {
            name: {"result": shown(start(name, request, run_sync, enqueue=True)), "detail": None}
            for name, request in request_to_each(body, ScoringRequest, names)
        }

    @routes.post("/{method}", summary="Run a scoring method")
    def run(method: str, body: ScoringRequest | None = None, run_sync: bool = False) -> object:
        if method not in names:
            known = ", ".join(names) or "none"
            raise HTTPException(404, f"There is no scoring method {method!r}; this server has: {known}")
        return shown(start(method, body, run_sync, enqueue=False))

    @routes.delete("/", summary="Stop the scoring and cancel what waits", response_model_exclude_none=True)
    def stop() -> Task | None:
        return queue.stop()

    return routes
