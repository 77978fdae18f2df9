"""What time does to a prediction: pure, of its row, the time, and its runner's own word. See the contract of each limit
in the settings."""

from enum import Enum
from typing import NamedTuple

from grid_node.runners.health import BUSY
from grid_node.runners.prediction import DISPATCHING, EXTERNAL, QUEUED, Prediction
from grid_node.settings import Settings

RELAY_EVERY = 2.0
"""Seconds between two tries to tell a worker of a cancel."""
LOST_AGAIN = 15.0
"""Seconds until a silent but busy worker is asked again."""
FOREVER = 86400.0
"""Seconds until something is looked at again that no time changes."""
STOPPED = "The runner stopped reporting."
NO_ANSWER = "The runner did not answer."


class Act(Enum):
    """What must happen now."""

    WAIT = "wait"
    """Nothing before `due_at`."""
    FAIL = "fail"
    FAIL_AND_TELL = "fail and tell"
    """The same, and its worker is told to stop."""
    ASK_CANCEL = "ask cancel"
    """Its own deadline asks for the cancel."""
    TELL = "tell"
    """Its worker must be told of the cancel."""
    CANCEL = "cancel"
    QUEUE = "queue"
    """Its send was lost: it waits for another one."""
    ASK_HEALTH = "ask health"
    """The verdict needs to know how its runner is."""


class Verdict(NamedTuple):
    """`error` where it fails; `due_at` when it must be looked at again otherwise."""

    act: Act
    due_at: float
    error: str | None = None


def queue_deadline(prediction: Prediction, settings: Settings) -> float:
    """When waiting ends."""
    return _earliest(prediction.created_at + settings.prediction_queue_ttl_s, prediction.deadline)


def verdict(prediction: Prediction, now: float, runner: str | None, settings: Settings) -> Verdict:
    """`runner` is how its runner is, None while nobody asked: the status of a health-check, and BUSY only if it is busy
    with this one."""
    if prediction.ended:
        return Verdict(Act.WAIT, now + FOREVER)
    if prediction.state == QUEUED:
        return _queued(prediction, now, settings)
    if prediction.source == EXTERNAL:
        return _external(prediction, now, settings)
    return _working(prediction, now, runner, settings)


def _queued(prediction: Prediction, now: float, settings: Settings) -> Verdict:
    if prediction.cancel_at is not None or (prediction.deadline is not None and prediction.deadline <= now):
        return Verdict(Act.CANCEL, now)
    due = queue_deadline(prediction, settings)
    if due <= now:
        return Verdict(Act.FAIL, now, f"No runner took the prediction within {settings.prediction_queue_ttl_s:g} s.")
    return Verdict(Act.WAIT, due)


def _external(prediction: Prediction, now: float, settings: Settings) -> Verdict:
    """Nobody here started it: its worker says when it ends. One that says nothing for as long as ended ones are kept
    has gone; else rows that nobody ends would stay for ever."""
    if prediction.cancel_at is None:
        silent_until = max(prediction.created_at, prediction.reported_at or 0.0) + settings.prediction_ttl_s
        if silent_until <= now:
            return Verdict(Act.FAIL, now, STOPPED)
        return Verdict(Act.WAIT, silent_until)
    ends = prediction.cancel_at + settings.cancel_grace_s
    return Verdict(Act.CANCEL if ends <= now else Act.WAIT, ends)


def _working(prediction: Prediction, now: float, runner: str | None, settings: Settings) -> Verdict:
    """The hard end first; then a cancel; then whether anybody still works on it."""
    ends = (prediction.dispatched_at or prediction.created_at) + settings.prediction_run_s
    if ends <= now:
        return Verdict(Act.FAIL_AND_TELL, now, f"The prediction ran longer than {settings.prediction_run_s:g} s.")
    if prediction.cancel_at is not None:
        over = prediction.cancel_at + settings.cancel_grace_s
        return Verdict(Act.CANCEL, now) if over <= now else Verdict(Act.TELL, min(over, ends, now + RELAY_EVERY))
    if prediction.deadline is not None and prediction.deadline <= now:
        return Verdict(Act.ASK_CANCEL, now)
    until = _earliest(ends, prediction.deadline)
    if prediction.state == DISPATCHING and prediction.reported_at is None:
        return _sent(prediction, now, until, settings)
    return _running(prediction, now, runner, until, settings)


def _sent(prediction: Prediction, now: float, until: float, settings: Settings) -> Verdict:
    claimed = prediction.claimed_until or now
    if claimed > now:
        return Verdict(Act.WAIT, min(until, claimed))
    if prediction.attempts >= settings.prediction_attempts:
        return Verdict(Act.FAIL_AND_TELL, now, NO_ANSWER)
    return Verdict(Act.QUEUE, now)


def _running(prediction: Prediction, now: float, runner: str | None, until: float, settings: Settings) -> Verdict:
    """Silence alone is no loss: a worker says nothing while it computes, and its last report may still be retried."""
    heard = max(prediction.dispatched_at or prediction.created_at, prediction.reported_at or 0.0)
    silent_until = heard + settings.runner_lost_s
    if silent_until > now:
        return Verdict(Act.WAIT, min(until, silent_until))
    if runner is None:
        return Verdict(Act.ASK_HEALTH, now)
    if runner != BUSY:
        return Verdict(Act.FAIL, now, STOPPED)
    return Verdict(Act.WAIT, min(until, now + LOST_AGAIN))


def _earliest(limit: float, deadline: float | None) -> float:
    return limit if deadline is None else min(limit, deadline)
