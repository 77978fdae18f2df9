"""The node's metrics, one registry for each app, so that tests do not meet each other's counts."""

import threading
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of latency buckets, in seconds."""


class Metrics:
    """Every metric of the node, by its Prometheus name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tasks = Gauge("grid_tasks", "Unfinished tasks by state", ["state"], registry=self.registry)
        self.tasks_ended = Counter(
            "grid_tasks_ended_total", "Tasks that ended since this process started", ["state"], registry=self.registry
        )
        self.queue = Gauge(
            "grid_queue_depth", "Tasks that wait for their first worker", ["kind"], registry=self.registry
        )
        self.scoring_queue = Gauge("grid_scoring_queue_depth", "Results that wait for a score", registry=self.registry)
        self.pulls = Gauge("grid_pulls_waiting", "Pulls that wait for a task", registry=self.registry)
        self.connections = Gauge(
            "grid_connections",
            "Open connections by face: client, worker, miner, runner, owner (/pc), run (/v1), websocket, sse, poll",
            ["face"],
            registry=self.registry,
        )
        self.hub_gap = Gauge(
            "grid_hub_gap_max_seconds", "Longest pause of the hub in the last minute", registry=self.registry
        )
        self.dispatch = Histogram(
            "grid_dispatch_seconds",
            "From a task's acceptance to its first lease",
            buckets=LATENCY,
            registry=self.registry,
        )
        self.scoring = Histogram(
            "grid_scoring_seconds", "From a result's submission to its verdict", buckets=LATENCY, registry=self.registry
        )
        self.ack = Histogram(
            "grid_ack_seconds",
            "From an event's arrival to its ack",
            ["event"],
            buckets=LATENCY,
            registry=self.registry,
        )
        self.http = Histogram(
            "grid_http_seconds",
            "From a request's arrival to its answer",
            ["route", "status"],
            buckets=LATENCY,
            registry=self.registry,
        )
        self.miner_predictions = Counter(
            "grid_miner_predictions_total",
            "Predictions by what became of them: the verdict's or the error's code, or replayed",
            ["code", "transport"],
            registry=self.registry,
        )
        self.miner_ack = Histogram(
            "grid_miner_prediction_ack_seconds",
            "From the arrival of a prediction to its receipt",
            buckets=LATENCY,
            registry=self.registry,
        )
        self.miner_sockets = Gauge(
            "grid_ws_connections", "Sockets of miners by state: open, pending", ["state"], registry=self.registry
        )
        self.miner_sockets_closed = Counter(
            "grid_ws_closed_total", "Sockets of miners that the node closed", ["code"], registry=self.registry
        )
        self.broadcast = Histogram(
            "grid_game_broadcast_seconds",
            "From the commit of a change of games to the last socket that it was sent to",
            buckets=LATENCY,
            registry=self.registry,
        )
        self.errors = Counter("grid_errors_total", "Answers that carry an error", ["code"], registry=self.registry)
        self.damaged = Counter("grid_blobs_damaged_total", "Stored files found to be damaged", registry=self.registry)
        self.job_restarts = Gauge("grid_job_process_restarts", "Job processes started again", registry=self.registry)
        self.compute_restarts = Gauge(
            "grid_compute_process_restarts", "Compute processes started again", registry=self.registry
        )
        self.inferences = Gauge("grid_inferences_in_hand", "Inferences that are not answered", registry=self.registry)
        self.batches = Gauge("grid_inference_batches", "Batches run since this process started", registry=self.registry)
        self.runners = RunnerMetrics(self.registry)


class RunnerMetrics:
    """Those of models that run elsewhere. What workers report and upload is in `grid_http_seconds`, by route."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.agents = Gauge(
            "grid_runner_agents", "Connected workers by what they say of themselves", ["status"], registry=registry
        )
        self.predictions = Gauge(
            "grid_runner_predictions", "Unfinished predictions by state", ["state"], registry=registry
        )
        self.ended = Counter(
            "grid_runner_predictions_ended_total",
            "Predictions that ended since this process started",
            ["state"],
            registry=registry,
        )
        self.reports = Gauge(
            "grid_runner_reports_waiting", "Large reports of workers that wait to be merged", registry=registry
        )
        self.deliveries = Gauge(
            "grid_runner_deliveries_pending", "Webhooks that are owed to clients", registry=registry
        )
        self.tries = Counter(
            "grid_runner_delivery_tries_total",
            "Tries of webhooks by what became of them: delivered, refused, unreachable",
            ["outcome"],
            registry=registry,
        )
        self.errand_restarts = Gauge(
            "grid_errand_process_restarts", "Processes for webhooks and large reports started again", registry=registry
        )


class HubWatch:
    """Measures how late a short sleep ends: the hub stood still for that long."""

    TICK = 0.01
    KEEP = 60.0

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._stopping = threading.Event()
        self._worst: list[tuple[float, float]] = []

    def start(self) -> None:
        threading.Thread(target=self._loop, name="grid-hub-watch", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def longest(self) -> float:
        """Longest gap of the last minute, in seconds."""
        edge = time.monotonic() - self.KEEP
        self._worst = [(at, gap) for at, gap in self._worst if at > edge]
        return max((gap for _, gap in self._worst), default=0.0)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            before = time.monotonic()
            time.sleep(self.TICK)
            gap = time.monotonic() - before - self.TICK
            if gap > 0.002:
                # A gap matters only while no later one is longer: the list stays short and falls.
                self._worst = [(at, other) for at, other in self._worst if other > gap]
                self._worst.append((before, gap))
