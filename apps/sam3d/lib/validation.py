"""Requests as pydantic models, and a sentence about the first value that is wrong."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lib.errors import body

PLACES = ("body", "query", "path", "header", "cookie")
SHOWN = 100
"""Characters of a wrong value that a message repeats."""


class ClientRequest(BaseModel):
    """A request from a client: unknown keys are rejected by name, and null means not given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        for key in value:
            if key not in cls.model_fields:
                raise ValueError(f"{str(key)[:SHOWN]}: no such key; there are {', '.join(cls.model_fields)}")
        return {key: item for key, item in value.items() if item is not None}

    def given(self) -> dict[str, object]:
        """Return the value that the client sent, as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)


def first_of(value: object) -> object:
    """Return the first entry of a list, which viewers send for a choice, None of an empty one; else the value."""
    return (value[0] if value else None) if isinstance(value, list | tuple) else value


def explain(error: ValidationError | RequestValidationError) -> str:
    """Return what is wrong with the first invalid value."""
    item = error.errors()[0]
    # pydantic names the branch of a union after its type, as in `images.tuple[str, ...]`
    parts = [str(part)[:SHOWN] for part in item["loc"] if part not in PLACES and "[" not in str(part)]
    place = ".".join(parts)
    if item["type"] == "missing":
        return f"{place or 'The body'}: this is required"
    if item["type"] == "value_error":
        reason = str(item["ctx"]["error"])
    else:
        shown = repr(item["input"])
        reason = f"{item['msg']}, not {shown if len(shown) <= SHOWN else shown[:SHOWN] + '...'}"
    return f"{place}: {reason}" if place else reason


def install_validation_errors(api: FastAPI) -> None:
    """Answer requests that do not fit a route's model with status 400 and a sentence.

    FastAPI's own answer repeats the input, which cannot always be written as JSON.
    """

    def answer(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse(body(explain(error)), 400)

    api.add_exception_handler(RequestValidationError, answer)
