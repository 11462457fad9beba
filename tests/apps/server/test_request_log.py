"""Request ids, the line in the log for each request, and what is logged and answered when the server fails."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from starlette.testclient import TestClient

from lib.request_context import RequestRecord, request_id
from lib.server.access.identity import Identity, Role
from lib.server.log_privacy import log_warning, protect_logs, scrub
from lib.server.request_log import RequestLog

PATIENT = "Mueller_Hans_1954"
ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The file of the log, with a handler such as MONAI Label's in the C locale."""
    handler = logging.FileHandler(tmp_path / "app.log", encoding="ascii")
    root = logging.getLogger()
    root.addHandler(handler)
    level, own = root.level, logging.getLogger("sam3d.requests").level
    root.setLevel(logging.INFO)
    kept = {name: list(logging.getLogger(name).handlers) for name in ("uvicorn", "uvicorn.access", "task_train")}
    shown = warnings.showwarning
    protect_logs()
    yield tmp_path / "app.log"
    warnings.showwarning = shown
    root.removeHandler(handler)
    root.setLevel(level)
    logging.getLogger("sam3d.requests").setLevel(own)
    for name, handlers in kept.items():
        logging.getLogger(name).handlers[:] = handlers


@pytest.fixture
def observed() -> list[RequestRecord]:
    return []


@pytest.fixture
def client(observed: list[RequestRecord]) -> TestClient:
    api = FastAPI()

    @api.post("/infer/{model}")
    async def infer(model: str, request: Request, image: str = "") -> dict[str, Any]:
        await request.body()
        logging.getLogger("lib.infers.sam3d").warning(f"{image} is odd")
        logging.getLogger("monailabel.endpoints.infer").info(f"Infer Request: {image}")
        logging.getLogger("monailabel.datastore.local").warning(f"No image for '{image}' in /data/{image}.nii.gz")
        request.state.identity = Identity("anna", Role.ANNOTATOR)
        return {"id": request_id()}

    @api.get("/fail/{image}")
    def fail(image: str) -> None:
        try:
            raise FileNotFoundError(2, "No such file", f"/data/{image}.nii.gz")
        except FileNotFoundError as error:
            raise RuntimeError(f"cannot open {image!r}") from error

    @api.get("/refuse")
    def refuse() -> None:
        raise HTTPException(400, "wrong")

    api.add_middleware(RequestLog, observers=(observed.append,))
    return TestClient(api, raise_server_exceptions=False)


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def test_each_request_is_one_line_with_the_template_of_the_route_and_the_user_s_role(
    client: TestClient, log: Path
) -> None:
    answer = client.post("/infer/sam3d", params={"image": PATIENT}, content=b"12345")
    line = next(line for line in lines(log) if line.get("event") == "request")
    assert line["request_id"] == answer.headers["X-Request-ID"] == answer.json()["id"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/infer/{model}", 200)
    assert (line["bytes_in"], line["bytes_out"]) == (5, len(answer.content))
    assert line["role"] == "annotator"
    assert line["user"] != "anna"
    assert 0 < line["seconds"] < 60


def test_no_message_of_any_logger_names_the_image_of_a_request(client: TestClient, log: Path) -> None:
    client.post("/infer/sam3d", params={"image": PATIENT})
    written = log.read_text(encoding="utf-8")
    assert PATIENT not in written
    assert "… is odd" in written
    assert "No image for … in …" in written
    assert "Infer Request" not in written


def test_an_id_from_a_proxy_is_kept_and_text_that_could_be_a_name_is_not(client: TestClient) -> None:
    sent = {ID: True, "123e4567-e89b-42d3-a456-426614174000": True, PATIENT: False, "a" * 200: False, "f00": False}
    for identifier, kept in sent.items():
        answered = client.get("/refuse", headers={"X-Request-ID": identifier}).headers["X-Request-ID"]
        assert (answered == identifier) is kept
        assert re.fullmatch(r"[0-9a-f-]{32,36}", answered)


def test_a_failure_is_answered_with_the_id_under_which_the_log_has_its_traceback(client: TestClient, log: Path) -> None:
    answer = client.get(f"/fail/{PATIENT}", headers={"X-Request-ID": ID})
    assert answer.status_code == 500
    assert answer.json() == {"detail": answer.json()["detail"], "request_id": ID}
    assert ID in answer.json()["detail"]
    assert "RuntimeError" not in answer.text
    failed = next(line for line in lines(log) if "traceback" in line)
    assert failed["request_id"] == ID
    assert "RuntimeError: cannot open …" in failed["traceback"]
    assert "FileNotFoundError" in failed["traceback"]
    assert "test_request_log.py" in failed["traceback"]
    assert PATIENT not in log.read_text(encoding="utf-8")


def test_a_response_that_breaks_off_closes_the_connection(log: Path) -> None:
    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        TestClient(RequestLog(half)).get("/")
    assert [line["status"] for line in lines(log) if "status" in line] == [500]


def test_a_client_that_stops_in_the_middle_of_its_request_is_disconnected(
    log: Path,
) -> None:
    first = [{"type": "http.request", "body": b"image", "more_body": True}]
    sent: list[Any] = []

    async def receive() -> Any:
        return first.pop() if first else await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    scope = {"type": "http", "method": "POST", "path": "/infer/sam3d", "query_string": b"", "headers": []}
    asyncio.run(RequestLog(reading, body_seconds=0.05)(scope, receive, send))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert "0.05 s" in json.loads(sent[1]["body"])["detail"]
    assert [line["status"] for line in lines(log) if "status" in line] == [408]


def test_a_request_that_is_complete_may_take_as_long_as_it_takes() -> None:
    messages: list[Any] = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"all", "more_body": False}]
    seen: list[str] = []

    async def patient(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"]])

    async def receive() -> Any:
        if len(messages) == 1:
            await asyncio.sleep(0.2)
        return messages.pop()

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    asyncio.run(RequestLog(patient, body_seconds=0.05)(scope, receive, lambda message: asyncio.sleep(0)))
    assert seen == ["http.request", "http.disconnect"]


def test_every_request_is_observed_with_its_route_even_without_one(
    client: TestClient, observed: list[RequestRecord]
) -> None:
    client.get(f"/nowhere/{PATIENT}")
    client.request("BREW", "/refuse")
    assert [(record.method, record.route, record.status) for record in observed] == [
        ("GET", "(none)", 404),
        ("OTHER", "/refuse", 405),
    ]


def test_access_logs_and_the_output_of_trainings_stay_out_of_the_log(log: Path) -> None:
    logging.getLogger("uvicorn.access").warning('127.0.0.1 - "GET /infer/sam3d?image=%s"', PATIENT)
    logging.getLogger("task_train").info(f"case {PATIENT}: Dice 0.8")
    logging.getLogger("httpx").info(f"HTTP Request: GET /studies?PatientName={PATIENT}")
    uvicorn = logging.getLogger("uvicorn.error")
    level = uvicorn.level
    uvicorn.setLevel(logging.INFO)  # a server of another test may have raised it
    uvicorn.info("Application startup complete.")
    uvicorn.setLevel(level)
    assert [line["message"] for line in lines(log)] == ["Application startup complete."]


@pytest.mark.parametrize(
    "text",
    [
        f"[Errno 2] No such file or directory: '/studies/{PATIENT}.nii.gz'",
        f"cannot read /studies/{PATIENT}.nrrd: truncated",
        f"cannot read {PATIENT}.nii.gz",
        f"C:\\studies\\{PATIENT}.nrrd is locked",
        f"http://pacs/studies?PatientName={PATIENT}",
        f'unknown label "{PATIENT}"',
        "series 1.2.840.113619.2.55.3.604688119.971.1268 is empty",
    ],
)
def test_names_in_messages_of_libraries_are_replaced(text: str) -> None:
    cleaned = scrub(text)
    assert "…" in cleaned
    assert PATIENT not in cleaned
    assert "1.2.840" not in cleaned


def test_ids_that_this_project_logs_are_hashes_which_are_the_same_for_the_same_image(log: Path) -> None:
    logger = logging.getLogger("lib.datastores.folder")
    logger.info("Image %s is gone", PATIENT)
    logger.info("%d of %d: %s: saved", 1, 3, PATIENT)
    logger.error("%s: %s", "datastore_v2.json", OSError(2, "No such file", f"/studies/{PATIENT}.json"))
    logger.warning(f"{PATIENT}.nii.gz of 1.2.840.113619.2.55.3.604688119 is damaged")
    gone, saved, failed, damaged = (line["message"] for line in lines(log))
    assert re.fullmatch(r"Image #[0-9a-f]{8} is gone", gone)
    assert saved == f"1 of 3: {gone.split()[1]}: saved"
    assert failed == "datastore_v2.json: [Errno 2] No such file: …"
    assert damaged == "… of … is damaged"


def test_the_console_shows_a_request_as_json_and_other_records_with_the_request_id(
    client: TestClient, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    console = logging.StreamHandler(sys.stderr)
    root = logging.getLogger()
    root.addHandler(console)
    try:
        protect_logs()
        answer = client.post("/infer/sam3d", params={"image": PATIENT})
    finally:
        root.removeHandler(console)
    shown = capsys.readouterr().err
    identifier = answer.headers["X-Request-ID"]
    assert f"… is odd [request {identifier}]" in shown
    assert json.loads(shown.splitlines()[-1])["request_id"] == identifier
    assert PATIENT not in shown


def test_warnings_of_python_are_logged_without_their_text(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert warnings.showwarning is log_warning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = log_warning  # `catch_warnings` of pytest puts another in its place
        warnings.warn_explicit(f"Invalid value: {PATIENT} isn't", UserWarning, "/venv/pydicom/valuerep.py", 29)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["message"] for line in lines] == ["UserWarning in pydicom.valuerep, line 29"]
    assert PATIENT not in "".join(capsys.readouterr())
