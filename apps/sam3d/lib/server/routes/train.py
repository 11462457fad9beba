"""`/train/`: start, watch and stop trainings."""

from fastapi import APIRouter, HTTPException
from pydantic import JsonValue, create_model

from lib.server.routes.app_protocol import App
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
    body_of_all = create_model(
        "TrainAllRequest",
        __base__=TrainRequest,
        __doc__="Keys for every trainer, and keys for one trainer under its name.",
        **dict.fromkeys(names, (TrainRequest | None, None)),  # type: ignore[call-overload]  # fields by name
    )

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
        given: dict[str, JsonValue] = body.given() if body else {}  # type: ignore[attr-defined]  # likewise
        shared = {key: value for key, value in given.items() if key not in names}
        results: dict[str, object] = {}
        for name in names:
            own = given.get(name)
            asked = TrainRequest.model_validate({**shared, **(own if isinstance(own, dict) else {})})
            result = start(name, asked, run_sync, enqueue=True)
            results[name] = {"result": shown(result), "detail": None}
        return results

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
