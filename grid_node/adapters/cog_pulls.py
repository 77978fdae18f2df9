"""Models that ask for tasks: each has at most one pull that waits at the dispatcher of this process."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from grid_node.clock import Clock
from grid_node.errors import GridError
from grid_node.generation.dispatch import Dispatcher
from grid_node.generation.leases import Kind
from grid_node.generation.pulls import Pull

AGAIN = 20.0
"""Seconds after which a pull is made anew: only a fresh one says that the worker is present."""
AFTER_ERROR = 5


class Offer(NamedTuple):
    """What a model can do now: `most` leases at a time, of which it has those in `holding`; tasks of one kind."""

    most: int
    holding: frozenset[str]
    kind: Kind

    def pull(self, model_id: str) -> Pull:
        return Pull(model_id, (self.kind.name,), self.kind.formats, self.most, self.holding)


@dataclass
class _Waiting:
    pull: Pull
    since: float


class CogPulls:
    """Whatever a pull is answered with is a row, so only a wait that it asks for is of interest."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}
        self._rest_until: dict[str, float] = {}

    def keep(self, offers: Mapping[str, Offer]) -> None:
        """From now on exactly these models ask for tasks."""
        now = self._clock.now()
        for model_id in list(self._waiting):
            self._look(model_id, now)
            if model_id not in offers or self._asks_for_another(model_id, offers[model_id].kind):
                self._leave(model_id)
        self._rest_until = {id: until for id, until in self._rest_until.items() if until > now}
        for model_id, offer in offers.items():
            if len(offer.holding) >= offer.most:
                self._leave(model_id)
            elif self._is_due(model_id, now):
                self._enter(model_id, offer, now)

    def stop(self) -> None:
        self.keep({})

    def _asks_for_another(self, model_id: str, kind: Kind) -> bool:
        waiting = self._waiting.get(model_id)
        return waiting is not None and waiting.pull.kinds != (kind.name,)

    def _is_due(self, model_id: str, now: float) -> bool:
        waiting = self._waiting.get(model_id)
        if waiting is not None:
            return now - waiting.since >= AGAIN
        return model_id not in self._rest_until

    def _enter(self, model_id: str, offer: Offer, now: float) -> None:
        pull = offer.pull(model_id)
        try:
            self._dispatcher.enter(pull)
        except GridError:
            self._waiting.pop(model_id, None)
            self._rest_until[model_id] = now + AFTER_ERROR
        else:
            self._waiting[model_id] = _Waiting(pull, now)

    def _look(self, model_id: str, now: float) -> None:
        """Forget a pull that was answered."""
        pull = self._waiting[model_id].pull
        if not pull.done.is_set():
            return
        del self._waiting[model_id]
        rest = AFTER_ERROR if pull.error is not None else (pull.answer or {}).get("retry_after", 0)
        if rest:
            self._rest_until[model_id] = now + rest

    def _leave(self, model_id: str) -> None:
        waiting = self._waiting.pop(model_id, None)
        if waiting is not None:
            self._dispatcher.withdraw(waiting.pull)
