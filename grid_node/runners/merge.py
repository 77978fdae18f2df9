"""How a report of a worker changes a prediction. Pure.

Hooks of one run arrive late, twice and in any order (of 122 hooks of a coglet 35 did, measured). What a prediction
shows in the end does not depend on that order, except that the first terminal state stays: a state never goes back, a
list never shrinks, the longest log counts, and times keep their first value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from grid_node.clock import rfc3339
from grid_node.runners.prediction import ENDED, NODE, ORDER, PROCESSING, SUCCEEDED, Prediction
from grid_node.runners.report import Report, texts_in

LOGS_KEPT = 1024 * 1024
"""Bytes of a log that are kept, the last ones."""
MEMBERS_MAX = 256 * 1024
"""Bytes of JSON that a prediction's metrics may have, and its unknown members."""
OUTPUT_MISSING, EXTERNAL_OUTPUT = "output_missing", "external_output"
METRICS_DROPPED, EXTRA_DROPPED = "metrics_dropped", "extra_dropped"
OUTPUT_UNORDERED = "output_unordered"
"""The files of a list stand as its worker told them, which need not be the order in which they were made."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


class Known(Protocol):
    """A file of ours."""

    @property
    def index(self) -> int | None:
        """Its place in the list of outputs, if its name told."""


@dataclass(frozen=True, slots=True)
class Uploads:
    """What the node knows of files. `known` by URL, `indexes` of the files that came for this prediction; `promised`:
    a model of this signature that succeeds has files to show."""

    known: Mapping[str, Known] = field(default_factory=dict)
    indexes: frozenset[int] = frozenset()
    promised: bool = False


NO_UPLOADS = Uploads()


def merge(before: Prediction, report: Report, now: float, uploads: Uploads = NO_UPLOADS) -> Prediction:
    """`before` as the report leaves it; itself, if it had ended."""
    if before.ended:
        return before
    state = _state(before, report)
    output = _output(before, report, uploads)
    metrics, metrics_dropped = _members(before.metrics, report.metrics)
    extra, extra_dropped = _members(before.extra, report.extra)
    logs, logs_length = _logs(before, report.logs)
    said = {
        OUTPUT_MISSING: report.ends and _is_missing(before, report, output, uploads),
        EXTERNAL_OUTPUT: output != before.output and has_foreign_url(output, uploads.known),
        OUTPUT_UNORDERED: report.ends and _is_unordered(output, uploads.known),
        METRICS_DROPPED: metrics_dropped,
        EXTRA_DROPPED: extra_dropped,
    }
    return replace(
        before,
        state=state,
        output=output,
        seen_items=max(before.seen_items, _items(report.output)),
        logs=logs,
        logs_length=logs_length,
        error=report.error if state in ENDED and state != SUCCEEDED else before.error,
        input=before.input if before.source == NODE or before.input else report.input or before.input,
        metrics=metrics,
        extra=extra,
        times=_times(before, report, state, now),
        warnings=[*before.warnings, *(name for name, so in said.items() if so and name not in before.warnings)],
    )


def urls_in(output: Any) -> set[str]:
    """What in an output looks like an address."""
    return {text for text in texts_in(output) if _URL.fullmatch(text)}


def has_foreign_url(output: Any, known: Mapping[str, Known]) -> bool:
    return any(text not in known and _URL.fullmatch(text) for text in texts_in(output))


def _state(before: Prediction, report: Report) -> str:
    if report.status is None or ORDER[report.status] <= ORDER[before.state]:
        return before.state
    return report.status


def _output(before: Prediction, report: Report, uploads: Uploads) -> Any:
    old, new = before.output, report.output
    if isinstance(old, list) and isinstance(new, list):
        new = _longer(old, new, final=report.ends)
    elif new is None:
        new = old
    return _in_order(new, uploads.known) if isinstance(new, list) else new


def _longer(old: list[Any], new: list[Any], final: bool) -> list[Any]:
    """Of two lists of one length the worker's final word, else the same one whichever came first."""
    if len(old) != len(new):
        return max(old, new, key=len)
    return new if final or _text(new) > _text(old) else old


def _in_order(items: list[Any], known: Mapping[str, Known]) -> list[Any]:
    """By upload index, where every item is a file of ours that has one."""
    indexes = [known[item].index if isinstance(item, str) and item in known else None for item in items]
    if None in indexes:
        return items
    return [item for _, item in sorted(zip(indexes, items, strict=True), key=lambda pair: pair[0] or 0)]


def _is_unordered(output: Any, known: Mapping[str, Known]) -> bool:
    """Whether there are two files of ours or more, and one of them does not tell its place."""
    items = output if isinstance(output, list) else []
    indexes = [known[item].index for item in items if isinstance(item, str) and item in known]
    return len(indexes) > 1 and None in indexes


def _is_missing(before: Prediction, report: Report, output: Any, uploads: Uploads) -> bool:
    """Whether the run's final word lacks output that there was, or should have been."""
    if isinstance(report.output, list) and len(report.output) < before.seen_items:
        return True
    if report.status != SUCCEEDED or not isinstance(report.output, list | None):
        return False
    if report.output is None and before.seen_items > 0:
        return True
    shown = {uploads.known[item].index for item in output or () if isinstance(item, str) and item in uploads.known}
    return bool(uploads.indexes - shown) or (not output and uploads.promised)


def _items(output: Any) -> int:
    return len(output) if isinstance(output, list) else 0


def _logs(before: Prediction, text: str | None) -> tuple[str, int]:
    if text is None or len(text) <= before.logs_length:
        return before.logs, before.logs_length
    return kept_tail(text), len(text)


def kept_tail(text: str, kept: int = LOGS_KEPT) -> str:
    """The last characters that `kept` bytes of UTF-8 hold."""
    if text.isascii():
        return text[-kept:]
    return text[-kept:].encode()[-kept:].decode("utf-8", "ignore")


def _members(before: dict[str, Any], new: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Both together; what is too much for a row stays in the log of reports only."""
    if not new or new.items() <= before.items():
        return before, False
    merged = {**before, **new}
    return (before, True) if len(orjson.dumps(merged)) > MEMBERS_MAX else (merged, False)


def _times(before: Prediction, report: Report, state: str, now: float) -> dict[str, str]:
    """The first value of each; what a worker does not say is filled from the receipt of its report."""
    said = {name: at for name, at in report.times.items() if before.source != NODE or name != "created_at"}
    times = {**said, **before.times}
    if said:
        times.setdefault("source", "worker")
    due = ["started_at"] if ORDER[state] >= ORDER[PROCESSING] else []
    missing = [name for name in [*due, *(["completed_at"] if state in ENDED else [])] if name not in times]
    if missing:
        times |= dict.fromkeys(missing, rfc3339(now)) | {"source": "node"}
    return times


def _text(value: Any) -> bytes:
    return orjson.dumps(value)
