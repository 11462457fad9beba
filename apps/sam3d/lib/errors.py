"""Map exceptions to HTTP error responses."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelException,
)
from starlette.exceptions import HTTPException as AnyHTTPException

from lib.request_context import request_id
from sam3d_label.errors import DiskFullError, ReadOnlyError, Sam3dError, StorageError

HANDLED = (Sam3dError, MONAILabelException, json.JSONDecodeError)

CALLERS_MISTAKES = (
    "Neither Image nor File",
    "DICOM SEG format is not supported",
    "DICOM SEG inference cannot be empty",
)
"""Texts in those of MONAI Label's status 500 errors that the caller can fix."""

TAKE_PARAMS = {"run_inference": '{"foreground": [[i, j, k]]}', "add_image": '{"client_id": "user-anna"}'}
"""Functions of its endpoints that take `params`, each with an example."""


class RemoteError(Sam3dError):
    """Another server that this one needs does not respond, or its response is invalid.

    Args:
        message: What is wrong, and how to fix it.
        status: HTTP status: 503 for no response, 502 for an invalid one.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class StudiesGoneError(StorageError):
    """The studies folder is not there, or another folder is in its place."""


def http_error(error: Exception) -> HTTPException:
    """Return the HTTP error of one of `HANDLED`: 404 if missing, 400 if invalid, 502 or 503 for other servers."""
    if isinstance(error, RemoteError):
        return HTTPException(error.status, str(error))
    if isinstance(error, StorageError):
        return HTTPException(storage_status(error), str(error))
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        return HTTPException(404, str(error.msg))
    if isinstance(error, MONAILabelException):
        return HTTPException(400, str(error.msg))
    if isinstance(error, json.JSONDecodeError):
        return HTTPException(400, f"This is not JSON: {error}")
    return HTTPException(400, str(error))


def storage_status(error: StorageError) -> int:
    """Return the HTTP status of a file that cannot be stored: 507 full disk, 403 read-only, 503 disk error."""
    return 507 if isinstance(error, DiskFullError) else 403 if isinstance(error, ReadOnlyError) else 503


def install_error_handlers(api: FastAPI) -> None:
    """Let every endpoint of the server answer `HANDLED` errors with `{"detail": ...}` instead of a bare 500.

    MONAI Label builds its FastAPI object before it loads an app, and Starlette fixes the handlers when the
    first message arrives, which is the one that loads the app. Therefore the middleware stack is
    dropped here, and the next message builds it again.
    """
    for kind in HANDLED:
        api.add_exception_handler(kind, _answer(http_error))
    api.add_exception_handler(AnyHTTPException, _answer(_callers_mistake))
    api.add_exception_handler(TypeError, _answer(_not_an_object))
    api.middleware_stack = None


def _callers_mistake(error: Exception) -> AnyHTTPException:
    assert isinstance(error, AnyHTTPException)
    if error.status_code == 500 and any(mistake in str(error.detail) for mistake in CALLERS_MISTAKES):
        return HTTPException(400, error.detail)
    return error


def _not_an_object(error: Exception) -> HTTPException:
    """Return a 400 for `params` that are no object, which MONAI Label merges without a check."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if last.name in TAKE_PARAMS and os.path.basename(os.path.dirname(last.filename)) == "endpoints":
        return HTTPException(400, f"params must be a JSON object, such as {TAKE_PARAMS[last.name]}")
    raise error


def body(detail: object) -> dict[str, object]:
    """Return the body of an error response: what is wrong, and the id of the request in the log.

    Args:
        detail: What is wrong, and how to fix it.
    """
    identifier = request_id()
    return {"detail": detail} if identifier is None else {"detail": detail, "request_id": identifier}


def _answer(
    describe: Callable[[Exception], AnyHTTPException],
) -> Callable[[Request, Exception], JSONResponse]:
    def handler(_: Request, error: Exception) -> JSONResponse:
        described = describe(error)
        return JSONResponse(body(described.detail), described.status_code, headers=described.headers)

    return handler
