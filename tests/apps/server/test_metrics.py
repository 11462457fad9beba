"""What Prometheus collects."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lib.request_context import RequestRecord
from lib.server.metrics import AppState, Metrics
from sam3d_label.cache import LruCache
from sam3d_label.model_update import learning_curve


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("/api")


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def finished(method: str, route: str, status: int, seconds: float = 0.2) -> RequestRecord:
    return RequestRecord("id", method, route=route, status=status, seconds=seconds)


def test_requests_are_counted_by_route_and_rejections_by_reason(metrics: Metrics) -> None:
    for status in (200, 200, 400, 413, 401, 429, 500):
        metrics.request(finished("POST", "/api/infer/{model}", status))
    found = values(metrics)
    assert found["sam3d_requests_total", "POST", "/api/infer/{model}", "200"] == 2
    assert found["sam3d_request_seconds_count", "POST", "/api/infer/{model}"] == 7
    for reason in ("invalid", "too_large", "login", "rate_limit"):
        assert found["sam3d_rejected_total", reason] == 1
    assert found["sam3d_login_failures_total",] == 1
    assert found["sam3d_defects_total",] == 1


def test_label_saves_are_counted_by_result(metrics: Metrics) -> None:
    for status in (200, 400, 507):
        metrics.request(finished("PUT", "/api/datastore/label", status))
    metrics.request(finished("GET", "/api/datastore/label", 200))
    found = values(metrics)
    assert {key[1]: value for key, value in found.items() if key[0] == "sam3d_label_saves_total"} == {
        "saved": 1,
        "rejected": 1,
        "failed": 1,
    }


def test_clicks_stages_and_cache_use_come_from_answered_requests(metrics: Metrics) -> None:
    request = {"foreground": [[1, 2, 3], [4, 5, 6]], "background": [[0, 0, 0]]}
    metrics.inference("sam3d", request, {"latencies": {"encode": 1.5, "total": 2.0}, "encoded": 2})
    metrics.inference("sam3d", request, {"latencies": {"total": 0.5}, "encoded": 0})
    metrics.inference("sam3d", {"foreground": "nothing"}, None)
    found = values(metrics)
    assert found["sam3d_inferences_total", "sam3d", "ok"] == 2
    assert found["sam3d_inferences_total", "sam3d", "failed"] == 1
    assert found["sam3d_clicks_total", "foreground"] == 4
    assert found["sam3d_clicks_total", "background"] == 2
    assert found["sam3d_stage_seconds_sum", "encode"] == 1.5
    assert found["sam3d_stage_seconds_count", "total"] == 2
    assert found["sam3d_embedding_cache_requests_total", "hit"] == 1
    assert found["sam3d_embedding_cache_requests_total", "miss"] == 1


def test_cache_queue_tasks_and_gate_decisions_are_read_when_they_are_collected(
    metrics: Metrics, tmp_path: Path
) -> None:
    queue = {"waiting": 0}
    tasks = {"train": ["DONE", "RUNNING", "DONE"]}
    metrics.registry.register(AppState(LruCache(64), tmp_path, lambda: tasks, lambda: queue))
    assert values(metrics)["sam3d_gate_decisions", "published"] == 0
    queue["waiting"] = 3
    (tmp_path / learning_curve.TABLE).write_text("at,version,published\nnow,0001,1\nnow,0002,0\nnow,0003,0\n")
    found = values(metrics)
    assert found["sam3d_queue", "waiting"] == 3
    assert found["sam3d_tasks", "train", "done"] == 2
    assert found["sam3d_tasks", "train", "running"] == 1
    assert found["sam3d_gate_decisions", "published"] == 1
    assert found["sam3d_gate_decisions", "rejected"] == 2
    assert found["sam3d_embedding_cache_max_bytes",] == 64
    assert found["sam3d_process_memory_bytes",] > 2**20
