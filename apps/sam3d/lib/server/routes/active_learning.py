"""`/activelearning/`: the next image to label."""

from __future__ import annotations

import logging
import time

from fastapi import APIRouter, HTTPException, Request

from lib.activelearning.strategies import STRATEGY, handed_out_by
from lib.datastores.studies import remember
from lib.server.routes.app_protocol import App
from lib.server.routes.form_routes import sender
from lib.validation import ClientRequest

logger = logging.getLogger(__name__)


class SampleRequest(ClientRequest):
    """Keys of a request for the next image.

    Attributes:
        label_tag: Accepted for MONAI Label's clients; the tag `final` counts.
        labels: Accepted, and of no effect.
        client_id: The client.
    """

    label_tag: str | None = None
    labels: tuple[str, ...] | None = None
    client_id: str | None = None


def router(app: App) -> APIRouter:
    """Return the routes under `/activelearning`.

    Args:
        app: Has the strategies and the datastore.
    """
    routes = APIRouter(prefix="/activelearning", tags=["ActiveLearning"])

    @routes.post("/{strategy}", summary="Choose the next image to label")
    def next_sample(request: Request, strategy: str, body: SampleRequest | None = None) -> dict[str, object]:
        given = body.given() if body else {}
        chosen = app.next_sample({**given, "strategy": strategy})
        if not chosen:
            return {}
        store, image = app.datastore(), chosen["id"]
        info = store.get_image_info(image)
        by = sender(request, body.client_id if body else None)
        note = {**handed_out_by(info), strategy: {"ts": int(time.time()), "client_id": by}}
        try:
            remember(store, image, {STRATEGY: note})
        except (HTTPException, OSError) as error:  # the image is gone meanwhile
            logger.warning("It is not noted that %s was handed out: %s", image, error)
        return {**info, STRATEGY: note, **chosen}

    return routes
