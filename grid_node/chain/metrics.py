"""Metrics of the chain, by the names and labels that Pylon has, and a few of our own."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

APP = "bittensor-pylon"
UNKNOWN_PATH = "*"
"""The one path that stands for all that there are not."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
OPERATION = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
JOB = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
"""Upper bounds of buckets, in seconds."""
_REQUEST = ["app_name", "method", "path", "status_code"]
_DONE = ["operation", "status", "netuid", "hotkey"]


class ChainMetrics:
    """Requests are counted by the faces, operations by the process of the chain, which sends them as samples."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._pylon(registry)
        self.cache_hits = Counter(
            "grid_chain_cache_hits_total", "Reads of the chain that were answered from memory", registry=registry
        )
        self.cache_misses = Counter(
            "grid_chain_cache_misses_total", "Reads that the process of the chain was asked for", registry=registry
        )
        self.head_age = Gauge(
            "grid_chain_head_age_seconds", "Age of the newest block; NaN while none is known", registry=registry
        )
        self.head_age.set(float("nan"))
        self.restarts = Counter(
            "grid_chain_worker_restarts_total", "Processes of the chain that were started again", registry=registry
        )
        self._seen_restarts = 0
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.request: Callable[[str, str], RequestSeries] = cache(self._request)

    def _pylon(self, registry: CollectorRegistry) -> None:
        self.requests = Counter("pylon_requests_total", "Requests of Pylon's API", _REQUEST, registry=registry)
        self.durations = Histogram(
            "pylon_request_duration_seconds", "From a request's arrival to its answer", _REQUEST, registry=registry
        )
        self.in_progress = Gauge(
            "pylon_requests_in_progress",
            "Requests that are not answered; their status_code is 200 before it is known",
            _REQUEST,
            registry=registry,
        )
        self.operations = Histogram(
            "pylon_bittensor_operation_duration_seconds",
            "Calls of the chain",
            ["operation", "status", "uri", "netuid", "hotkey"],
            buckets=OPERATION,
            registry=registry,
        )
        self.fallbacks = Counter(
            "pylon_bittensor_fallback_total",
            "Reads that went to the archive: stale_block, unknown_block",
            ["reason", "operation", "hotkey"],
            registry=registry,
        )
        self.jobs = Histogram(
            "pylon_apply_weights_job_duration_seconds",
            "Weights from their first attempt to their end; a success has landed",
            _DONE,
            buckets=JOB,
            registry=registry,
        )
        self.attempts = Histogram(
            "pylon_apply_weights_attempt_duration_seconds",
            "Single attempts to set weights",
            _DONE,
            buckets=OPERATION,
            registry=registry,
        )

    # --- requests -------------------------------------------------------------------------------------------------

    def _request(self, method: str, path: str) -> "RequestSeries":
        return RequestSeries(self, method, path)

    def of_request(self, method: str, path: str | None) -> "RequestSeries":
        """The series of a method and a path's template; None: there is no such path."""
        return self.request(method if method in METHODS else "*", path or UNKNOWN_PATH)

    # --- what the process of the chain measured -------------------------------------------------------------------

    def absorb(self, samples: Iterable[Sequence[Any]]) -> None:
        """Take what `Samples.drain()` gave."""
        for kind, *values in samples:
            take = _TAKERS.get(kind)
            if take is not None:
                take(self, *values)

    def _operation(self, operation: str, status: str, uri: str, netuid: Any, hotkey: str, seconds: float) -> None:
        self.operations.labels(operation, status, uri, str(netuid), hotkey).observe(seconds)

    def _fallback(self, reason: str, operation: str, hotkey: str) -> None:
        self.fallbacks.labels(reason, operation, hotkey).inc()

    def _job(self, status: str, netuid: Any, hotkey: str, seconds: float) -> None:
        self.jobs.labels("run_job", status, str(netuid), hotkey).observe(seconds)

    def _attempt(self, status: str, netuid: Any, hotkey: str, seconds: float) -> None:
        self.attempts.labels("_apply_weights", status, str(netuid), hotkey).observe(seconds)

    def look(self, head_age: float | None, restarts: int) -> None:
        """Bring up to date what nobody reports."""
        self.head_age.set(float("nan") if head_age is None else head_age)
        if restarts > self._seen_restarts:
            self.restarts.inc(restarts - self._seen_restarts)
            self._seen_restarts = restarts


_TAKERS: dict[str, Callable[..., None]] = {
    "operation": ChainMetrics._operation,
    "fallback": ChainMetrics._fallback,
    "job": ChainMetrics._job,
    "attempt": ChainMetrics._attempt,
}


class RequestSeries:
    """The three series of one method and path. Looking labels up costs more than counting."""

    def __init__(self, metrics: ChainMetrics, method: str, path: str) -> None:
        self._metrics = metrics
        self._labels = (APP, method, path)
        self._in_progress = metrics.in_progress.labels(*self._labels, "200")
        self._by_status: dict[int, tuple[Any, Any]] = {}

    def begin(self) -> None:
        self._in_progress.inc()

    def end(self) -> None:
        self._in_progress.dec()

    def answered(self, status: int, seconds: float) -> None:
        found = self._by_status.get(status)
        if found is None:
            labels = (*self._labels, str(status))
            found = self._metrics.requests.labels(*labels), self._metrics.durations.labels(*labels)
            self._by_status[status] = found
        count, duration = found
        count.inc()
        duration.observe(seconds)
