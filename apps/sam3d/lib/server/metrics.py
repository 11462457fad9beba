"""Prometheus metrics: counters fed by finished requests, and values that are read from the app at each collection."""

from __future__ import annotations

import csv
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import psutil
import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lib.infers.answer import AnswerParams
from lib.request_context import CLIENT_LEFT, RequestRecord
from sam3d_label.errors import Sam3dError
from sam3d_label.model_update import learning_curve

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
STAGE_SECONDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

REASONS = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not_found",
    405: "method",
    408: "timeout",
    409: "conflict",
    411: "too_large",
    413: "too_large",
    415: "media_type",
    421: "host",
    422: "invalid",
    429: "rate_limit",
    431: "too_large",
    CLIENT_LEFT: "client_left",
    503: "unavailable",
    507: "disk_full",
}
"""Status of an answer to the reason of a rejection, for the metric."""

INFER, SAVE_LABEL = ("POST", "/infer/{model}"), ("PUT", "/datastore/label")


class Cache(Protocol):
    """Values of the embedding cache for the metrics."""

    max_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes held now."""

    def __len__(self) -> int: ...


class Metrics:
    """All metrics of one server.

    Args:
        prefix: Path prefix of all routes (`MONAI_LABEL_API_STR`).
    """

    def __init__(self, prefix: str = "") -> None:
        self.registry = CollectorRegistry()
        self._prefix = prefix
        count, time = partial(Counter, registry=self.registry), partial(Histogram, registry=self.registry)
        at, stage = ("method", "route"), ("stage",)
        self._requests = count("sam3d_requests", "Requests that were answered", (*at, "status"))
        self._seconds = time("sam3d_request_seconds", "Seconds of a request", at, buckets=SECONDS)
        self._inferences = count("sam3d_inferences", "Requests for a mask, by result", ("model", "result"))
        self._clicks = count("sam3d_clicks", "Clicks in answered requests", ("kind",))
        self._stages = time("sam3d_stage_seconds", "Seconds by stage", stage, buckets=STAGE_SECONDS)
        self._cache = count("sam3d_embedding_cache_requests", "Masks, by use of the cache", ("result",))
        self._labels = count("sam3d_label_saves", "Labels sent by clients, by result", ("result",))
        self._rejected = count("sam3d_rejected", "Requests that were rejected", ("reason",))
        self._logins = count("sam3d_login_failures", "Requests with missing or wrong credentials")
        self._defects = count("sam3d_defects", "Requests that ended in an unexpected exception")

    def request(self, record: RequestRecord) -> None:
        """Count a request that was answered.

        Args:
            record: The request, from the request log.
        """
        status = record.status
        self._requests.labels(record.method, record.route, str(status)).inc()
        self._seconds.labels(record.method, record.route).observe(record.seconds)
        if status >= 400 and status != 500:
            self._rejected.labels(REASONS.get(status, "other")).inc()
        if status == 401:
            self._logins.inc()
        if status == 500:
            self._defects.inc()
        asked = (record.method, record.route.removeprefix(self._prefix))
        if asked == SAVE_LABEL:
            self._labels.labels(_result(status)).inc()

    def inference(self, model: str, params: Mapping[str, object], answer: AnswerParams | None) -> None:
        """Count a request for a mask.

        Args:
            model: Name of the model, which exists.
            params: The request, with `foreground` and `background`.
            answer: The JSON part of the answer, with `latencies`; None if there is no mask.
        """
        self._inferences.labels(model, "ok" if answer is not None else "failed").inc()
        if answer is None:
            return
        for kind in ("foreground", "background"):
            clicks = params.get(kind)
            self._clicks.labels(kind).inc(len(clicks) if isinstance(clicks, list) else 0)
        for stage, seconds in answer.get("latencies", {}).items():
            self._stages.labels(stage).observe(seconds)
        if (encoded := answer.get("encoded")) is not None:
            self._cache.labels("miss" if encoded else "hit").inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def _result(status: int) -> str:
    return "saved" if status < 300 else "failed" if status >= 500 else "rejected"


class AppState(Collector):
    """Values that are read from the app when the metrics are collected.

    Args:
        cache: The embedding cache.
        model_dir: Folder with the learning curve, where each gate decision is.
        tasks: Status of each task in the background, by kind.
        queue: Requests for a mask that wait, and that are computed.
    """

    def __init__(
        self,
        cache: Cache,
        model_dir: Path,
        tasks: Callable[[], Mapping[str, Iterable[str]]],
        queue: Callable[[], Mapping[str, int]],
    ) -> None:
        self._cache, self._model_dir, self._tasks, self._queue = cache, model_dir, tasks, queue

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that no metric is collected when the collector is registered."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the values now."""
        yield _gauge("sam3d_embedding_cache_bytes", "Bytes in the embedding cache", self._cache.nbytes)
        yield _gauge("sam3d_embedding_cache_max_bytes", "Budget of the embedding cache", self._cache.max_bytes)
        yield _gauge("sam3d_embedding_cache_entries", "Embeddings in the cache", len(self._cache))
        yield _gauges("sam3d_queue", "Requests for a mask, by state", "state", self._queue())
        yield self._background()
        yield self._decisions()
        yield _gauge("sam3d_process_memory_bytes", "Resident memory of the server", psutil.Process().memory_info().rss)
        yield from device_memory()

    def _background(self) -> Metric:
        metric = GaugeMetricFamily("sam3d_tasks", "Tasks in the background since the start", labels=("kind", "status"))
        for kind, statuses in self._tasks().items():
            for status, number in Tally(statuses).items():
                metric.add_metric((kind, status.lower()), number)
        return metric

    def _decisions(self) -> Metric:
        try:
            rows = learning_curve.read(self._model_dir)
        except (OSError, UnicodeDecodeError, csv.Error, Sam3dError):
            rows = []
        decided = Tally("published" if row.published else "rejected" for row in rows)
        numbers = {result: decided[result] for result in ("published", "rejected")}
        return _gauges("sam3d_gate_decisions", "Trained versions, by the gate's decision", "decision", numbers)


def device_memory() -> Iterable[Metric]:
    """Return the memory of each CUDA device, bytes: in use by this server, free and total."""
    metric = GaugeMetricFamily("sam3d_device_memory_bytes", "Memory of a CUDA device", labels=("device", "kind"))
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        values = {"free": free, "total": total, "allocated": torch.cuda.memory_allocated(index)}
        for kind, value in values.items():
            metric.add_metric((f"cuda:{index}", kind), value)
    yield metric


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _gauges(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    metric = GaugeMetricFamily(name, meaning, labels=(label,))
    for key, value in values.items():
        metric.add_metric((key,), value)
    return metric
