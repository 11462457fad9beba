"""`/batch/infer`: one model on many images."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from pydantic import BeforeValidator, Field

from lib.requests import Dtype, Extension
from lib.server.routes.app_protocol import App
from lib.server.routes.train import shown
from lib.server.tasks import Task
from lib.trainers.sam3d import Gpus
from lib.validation import ClientRequest, first_of


class BatchRequest(ClientRequest):
    """Keys of a request for batch inference.

    Attributes:
        images: Which images, or their ids; replaces the query's `images`.
        label_tag: Tag under which the masks are saved.
        save_label: Accepted for MONAI Label's clients; masks are always saved.
        max_batch_size: Largest number of images; 0 = no limit.
        max_workers: Images at a time; 0 = one on each device.
        multi_gpu: Whether all GPUs share the work.
        gpus: Their numbers, separated by commas, or `all`.
        device: Where to compute.
        label: Name of the structure to segment.
        label_prompt: Its number, as OHIF sends it.
        result_extension: Type of the saved files.
        result_dtype: Type of their voxels.
        result_compress: Whether an NRRD is written with gzip.
        restore_label_idx: Accepted, and of no effect.
        logging: Accepted, and of no effect.
        client_id: The client.
    """

    images: BatchInferImageType | tuple[str, ...] | None = None
    label_tag: str = "original"
    save_label: bool = True
    max_batch_size: int = Field(default=0, ge=0, le=1_000_000)
    max_workers: int = Field(default=0, ge=0, le=64)
    multi_gpu: bool = True
    gpus: Gpus = "all"
    device: Annotated[str | None, BeforeValidator(first_of)] = None
    label: str | None = None
    label_prompt: int | tuple[int, ...] | None = None
    result_extension: Extension | None = None
    result_dtype: Dtype | None = None
    result_compress: bool | None = None
    restore_label_idx: bool | None = None
    logging: str | None = None
    client_id: str | None = None


def router(app: App) -> APIRouter:
    """Return the routes under `/batch`.

    Args:
        app: Has the models.
    """
    routes = APIRouter(prefix="/batch", tags=["Infer"])
    queue = app.tasks.batch_infer

    @routes.get("/infer", summary="Status of the batch", response_model_exclude_none=True)
    def status(all: bool = False, check_if_running: bool = False) -> Task | list[Task]:
        return queue.status(all_tasks=all, check_if_running=check_if_running)

    @routes.post("/infer/{model}", summary="Run a model on many images")
    def run(
        model: str,
        images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
        body: BatchRequest | None = None,
        run_sync: bool = False,
    ) -> object:
        request = {"model": model, "images": images.value, **(body.given() if body else {})}
        app.check_batch(request)
        if run_sync:
            with queue.here():
                return app.batch_infer(request)
        return shown(queue.submit(request))

    @routes.delete("/infer", summary="Stop the batch and cancel those that wait", response_model_exclude_none=True)
    def stop() -> Task | None:
        return queue.stop()

    return routes
