"""`/datastore/`: images, labels and their records."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from fastapi import APIRouter

from lib.server.routes import dataset, images, labels
from lib.server.routes.app_protocol import App


class ListingDetail(str, Enum):
    """Content of the response to `GET /datastore/`: counts, pairs to train on, or everything."""

    train = "train"
    stats = "stats"
    all = "all"


def router(app: App) -> APIRouter:
    """Return the routes under `/datastore`.

    Args:
        app: Has the datastore.
    """
    routes = APIRouter(prefix="/datastore", tags=["Datastore"])

    @routes.get("/", summary="Counts, pairs to train on, or all images and labels")
    def listing(output: ListingDetail = ListingDetail.stats) -> object:
        store = app.datastore()
        answers: dict[ListingDetail, Callable[[], object]] = {
            ListingDetail.all: store.json,
            ListingDetail.train: store.datalist,
        }
        return answers.get(output, store.status)()

    for part in (images.router, labels.saving_router, labels.router, dataset.router):
        routes.include_router(part(app))
    return routes
