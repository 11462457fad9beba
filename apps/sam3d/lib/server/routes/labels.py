"""`/datastore/label`: labels and their records."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from pydantic import ValidationError

from lib.datastores.metadata import FINAL
from lib.datastores.studies import check_tag
from lib.server.json_checks import JsonError, read_object
from lib.server.routes.app_protocol import App
from lib.server.routes.client_records import LABEL_KEYS, LabelInfo, signed, unreserved, without
from lib.server.routes.form_routes import form_route
from lib.server.routes.volume_files import Name, Text, Upload, existing, sent, suffix_of
from lib.temporary import received_file
from lib.validation import explain

EXAMPLE = '{"label_info": [{"name": "tumor", "idx": 1}]}'


def saving_router(app: App) -> APIRouter:
    """Return the route that saves a label: it has its own places, so that uploads of images do not delay it.

    Args:
        app: Has the datastore.
    """
    limits = app.config
    routes = APIRouter(route_class=form_route(limits.max_json_bytes, readers=app.savers))

    @routes.put("/label", summary="Save a label")
    def save_label(
        request: Request, image: Name, label: Upload, params: Text = "{}", tag: str = FINAL
    ) -> dict[str, object]:
        info = label_info(without(read_object(params, limits, "params", EXAMPLE), LABEL_KEYS), "params")
        suffix = suffix_of(label)
        with received_file(label.file, suffix) as path:
            stored = app.datastore().save_label(image, path, tag or FINAL, signed(info, request))
        more = app.on_save_label(image, stored) or {}
        return {**more, "image": image, "label": stored}

    return routes


def router(app: App) -> APIRouter:
    """Return the other routes of labels.

    Args:
        app: Has the datastore.
    """
    limits = app.config
    routes = APIRouter(route_class=form_route(limits.max_json_bytes, readers=app.readers))

    @routes.delete("/label", summary="Remove a label")
    def remove_label(id: Name, tag: Name) -> dict[str, object]:
        app.datastore().remove_label(id, check_tag(tag))
        return {}

    @routes.head("/label", summary="Whether a label exists")
    def check_label(image: Name, tag: Name) -> dict[str, object]:
        existing(app.datastore().get_label_uri(image, tag), "label", image)
        return {}

    @routes.get("/label", summary="Download a label", response_class=FileResponse)
    def download_label(label: Name, tag: Name) -> FileResponse:
        return sent(existing(app.datastore().get_label_uri(label, tag), "label", label), label)

    @routes.get("/label/info", summary="The record of a label")
    def read_label_info(label: Name, tag: Name) -> dict[str, object]:
        return app.datastore().get_label_info(label, tag)

    @routes.put("/label/info", summary="Change the record of a label")
    def update_label_info(request: Request, label: Name, tag: Name, info: Text = "{}") -> None:
        change_label(request, label, tag, info, "info")

    @routes.put("/updatelabelinfo", summary="The same", include_in_schema=False, deprecated=True)
    def update_label_params(request: Request, label: Name, tag: Name, params: Text = "{}") -> None:
        change_label(request, label, tag, params, "params")

    def change_label(request: Request, label: str, tag: str, text: str, field: str) -> None:
        info = unreserved(read_object(text, limits, field, EXAMPLE), LABEL_KEYS)
        app.datastore().update_label_info(label, tag, signed(label_info(info, field), request))

    return routes


def label_info(info: Mapping[str, object], field: str) -> dict[str, object]:
    """Return the client's record of a label, with checked names and numbers of its structures.

    Raises:
        JsonError: They have another form.
    """
    try:
        known = LabelInfo.model_validate(info)
    except ValidationError as error:
        raise JsonError(f"{field}: {explain(error)}. An example: {EXAMPLE}") from None
    return known.model_dump(mode="json", exclude_unset=True)
