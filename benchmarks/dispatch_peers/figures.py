"""Tasks a second and percentiles: the same arithmetic for every peer."""

from collections.abc import Sequence


def figures(finished: Sequence[tuple[float, float]], since: float, until: float) -> dict[str, float]:
    """`finished` holds (when, seconds it took) of each task; those that ended between `since` and `until` count,
    `all_tasks` is what CPU time is shared among."""
    taken = sorted(seconds for at, seconds in finished if since <= at < until)
    return {
        "tasks": len(taken),
        "all_tasks": len(finished),
        "tasks_per_s": len(taken) / (until - since),
        "p50_ms": percentile(taken, 0.50) * 1000,
        "p99_ms": percentile(taken, 0.99) * 1000,
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
