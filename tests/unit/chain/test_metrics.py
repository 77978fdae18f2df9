"""The chain's metrics: what its process measured, under Pylon's names, labels and buckets."""

import math

import pytest
from prometheus_client import CollectorRegistry

from grid_node.chain.metrics import ChainMetrics
from grid_node.chain.samples import Samples
from grid_node.clock import ManualClock


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> ChainMetrics:
    return ChainMetrics(registry)


def test_samples_become_series(metrics: ChainMetrics, registry: CollectorRegistry) -> None:
    clock = ManualClock()
    samples = Samples(clock.steady)
    with samples.operation("get_neurons", "wss://x", 1):
        clock.advance(0.4)
    with pytest.raises(OSError, match="gone"), samples.operation("get_commitment", "wss://x", 1, "5G"):
        raise OSError("gone")
    samples.fallback("stale_block", "get_neurons")
    samples.job("success", 1, "5G", 40.0)
    samples.attempt("error", 1, "5G", 2.0)

    metrics.absorb(samples.drain())

    operation = {"operation": "get_neurons", "status": "success", "uri": "wss://x", "netuid": "1", "hotkey": "N/A"}
    name = "pylon_bittensor_operation_duration_seconds"
    assert registry.get_sample_value(f"{name}_bucket", {**operation, "le": "0.1"}) == 0
    assert registry.get_sample_value(f"{name}_bucket", {**operation, "le": "0.5"}) == 1
    failed = {**operation, "operation": "get_commitment", "status": "error", "hotkey": "5G"}
    assert registry.get_sample_value(f"{name}_count", failed) == 1
    fallback = {"reason": "stale_block", "operation": "get_neurons", "hotkey": "N/A"}
    assert registry.get_sample_value("pylon_bittensor_fallback_total", fallback) == 1
    job = {"operation": "run_job", "status": "success", "netuid": "1", "hotkey": "5G"}
    assert registry.get_sample_value("pylon_apply_weights_job_duration_seconds_sum", job) == 40
    attempt = {**job, "operation": "_apply_weights", "status": "error"}
    assert registry.get_sample_value("pylon_apply_weights_attempt_duration_seconds_sum", attempt) == 2


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("pylon_bittensor_operation_duration_seconds", "0.1 0.5 1.0 2.0 5.0 10.0 30.0 60.0 120.0 +Inf"),
        ("pylon_apply_weights_attempt_duration_seconds", "0.1 0.5 1.0 2.0 5.0 10.0 30.0 60.0 120.0 +Inf"),
        ("pylon_apply_weights_job_duration_seconds", "1.0 5.0 10.0 30.0 60.0 120.0 300.0 600.0 1200.0 +Inf"),
    ],
)
def test_the_buckets_are_pylon_s(metrics: ChainMetrics, registry: CollectorRegistry, name: str, bounds: str) -> None:
    metrics.absorb(
        [
            ["operation", "get_block", "success", "u", "N/A", "N/A", 1.0],
            ["job", "success", 1, "h", 1.0],
            ["attempt", "success", 1, "h", 1.0],
        ]
    )

    (family,) = [family for family in registry.collect() if family.name == name]
    found = [sample.labels["le"] for sample in family.samples if sample.name.endswith("_bucket")]
    assert found == bounds.split()


def test_a_sample_of_an_unknown_kind_is_passed_over(metrics: ChainMetrics, registry: CollectorRegistry) -> None:
    metrics.absorb([["news", 1, 2], ["fallback", "unknown_block", "get_block", "N/A"]])

    labels = {"reason": "unknown_block", "operation": "get_block", "hotkey": "N/A"}
    assert registry.get_sample_value("pylon_bittensor_fallback_total", labels) == 1


def test_restarts_only_count_up_and_an_unknown_head_has_no_age(
    metrics: ChainMetrics, registry: CollectorRegistry
) -> None:
    assert math.isnan(registry.get_sample_value("grid_chain_head_age_seconds") or 0)

    for age, restarts in ((7.0, 2), (None, 2), (3.0, 3)):
        metrics.look(age, restarts)

    assert registry.get_sample_value("grid_chain_head_age_seconds") == 3
    assert registry.get_sample_value("grid_chain_worker_restarts_total") == 3
