"""Requests that schemathesis makes from the server's own OpenAPI document, valid and invalid ones, for every route."""

from __future__ import annotations

from typing import Any

import requests
import schemathesis
from hypothesis import given, seed
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.helpers.fuzz_helpers import Probe, examples

LEFT_OUT = ("/proxy/",)
"""Routes that ask another server, which is not there."""


def test_every_route_answers_any_request_that_its_schema_allows_or_forbids(probe: Probe) -> None:
    document = probe.client.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    sent: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.startswith(LEFT_OUT):
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _send_some(probe, operation, mode, sent)
    assert len(set(sent)) > 30
    assert probe.client.get("/info/").status_code == 200


def _send_some(probe: Probe, operation: Any, mode: Any, sent: list[str]) -> None:
    @examples(3)
    @seed(0)
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        request = case.as_transport_kwargs(base_url="http://127.0.0.1")
        if _check(probe, request):
            sent.append(operation.label)

    try:
        send()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, operation.label


def _check(probe: Probe, request: dict[str, Any]) -> bool:
    """Send what requests, the library that schemathesis writes for, makes of the arguments."""
    known = ("method", "url", "params", "headers", "json", "data", "files", "cookies")
    try:
        made = requests.Request(**{name: request[name] for name in known if name in request}).prepare()
    except (requests.RequestException, UnicodeError, ValueError):  # what no client can send
        return False
    probe.check(str(made.method), str(made.url), content=made.body or b"", headers=dict(made.headers))
    return True
