"""Who speaks to the runners' API: holders of API keys, under the name of their account."""

import re
from dataclasses import dataclass

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import Forbidden, InvalidKey, RunnerKeyInvalid, TooManyBadKeys, WrongScope
from grid_node.identity.limits import Limiter
from grid_node.identity.service import Caller, KeyService
from grid_node.runners.ports import RunnerCaller

_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def account_of(caller: Caller) -> str:
    """The key's name where it can stand in an address, else its id."""
    return caller.name if _ACCOUNT.fullmatch(caller.name) else caller.key_id


class RunnerAccess:
    """Admits keys by scope, in the words of this API."""

    def __init__(self, store: Store, clock: Clock, keys: KeyService) -> None:
        self._store = store
        self._clock = clock
        self._keys = keys

    def by_key(self, key: object, address: str, scope: str) -> RunnerCaller:
        """Raises MissingKey, RunnerKeyInvalid, TooManyBadKeys, WrongScope."""
        try:
            caller = self._keys.authenticate(key, address)
        except TooManyBadKeys:
            raise
        except InvalidKey:
            raise RunnerKeyInvalid() from None
        return self._admitted(caller, scope)

    def by_id(self, key_id: str, scope: str) -> RunnerCaller:
        """The holder of a key that was shown before; looked up anew."""
        return self._store.read(lambda tx: self.require(tx, key_id, scope))

    def require(self, tx: Transaction, key_id: str, scope: str) -> RunnerCaller:
        """The same inside of a unit of work."""
        try:
            caller = self._keys.require(tx, key_id, None, self._clock.now())
        except InvalidKey:
            raise RunnerKeyInvalid() from None
        return self._admitted(caller, scope)

    @staticmethod
    def _admitted(caller: Caller, scope: str) -> RunnerCaller:
        if scope not in caller.scopes:
            raise WrongScope(f"API key lacks the scope {scope}.")
        return RunnerCaller(caller.key_id, account_of(caller))


@dataclass(frozen=True)
class KeyCharge:
    """Runners' Charge: a prediction counts like a task."""

    keys: KeyService
    limiter: Limiter

    def __call__(self, tx: Transaction, key_id: str, now: float) -> None:
        try:
            caller = self.keys.require(tx, key_id, "client", now, hold=True)
        except Forbidden:
            raise WrongScope("API key lacks the scope client.") from None
        self.limiter.charge(tx, caller, now)
