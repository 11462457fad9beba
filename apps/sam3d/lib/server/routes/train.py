"""`/train/`: start, watch and stop trainings."""

from fastapi import APIRouter, HTTPException

from lib.server.routes.app_protocol import App
from lib.server.routes.requests_to_all import body_to_all, request_to_each
from lib.server.tasks import Task
from lib.trainers.sam3d import TrainRequest
from lib.validation import ClientRequest


def router(app: App) -> APIRouter:
    """Return the routes under `/train`.

    Args:
        app: Has the trainers.
    """
    routes = APIRouter(prefix="/train", tags=["Train"])
    queue = app.tasks.train
    names = list(app.trainers())
    body_of_all = body_to_all("TrainAllRequest", TrainRequest, names)

    def start(model: str, body: ClientRequest | None, run_sync: bool, enqueue: bool) -> Task | dict[str, object]:
        request = {"model": model, **(body.given() if body else {})}
        app.check_train(request)
        if run_sync:
            with queue.here(enqueue=enqueue):
                return app.train(request)
        return queue.submit(request, enqueue=enqueue)

    @routes.get("/", summary="Status of the training", response_model_exclude_none=True)
    def status(all: bool = False, check_if_running: bool = False) -> Task | list[Task]:
        return queue.status(all_tasks=all, check_if_running=check_if_running)

    @routes.post("/", summary="Run all trainers", include_in_schema=False, deprecated=True)
    def run_all(
        body: body_of_all | None = None,  # type: ignore[valid-type]  # made at run time
        run_sync: bool = False,
    ) -> dict[str, object]:
        return {
            name: {"result": shown(start(name, request, run_sync, enqueue=True)), "detail": None}
            for name, request in request_to_each(body, TrainRequest, names)
        }

    @routes.post("/{model}", summary="Run a trainer")
    def run(model: str, body: TrainRequest | None = None, run_sync: bool = False, enqueue: bool = False) -> object:
        if model not in names:
            raise HTTPException(404, f"There is no trainer {model!r}; this server has: {', '.join(names) or 'none'}")
        return shown(start(model, body, run_sync, enqueue))

    @routes.delete("/", summary="Stop the training and cancel those that wait", response_model_exclude_none=True)
    def stop() -> Task | None:
        return queue.stop()

    return routes


def shown(result: Task | dict[str, object]) -> dict[str, object]:
    """Return a task without the fields that it does not have yet; any other result as it is."""
    return result.model_dump(exclude_none=True) if isinstance(result, Task) else result
