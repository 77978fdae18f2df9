"""The port of hosting, filled from identity."""

from grid_node.clock import Clock
from grid_node.database import Store
from grid_node.errors import MissingKey
from grid_node.hosting.rights import ModelCaller
from grid_node.identity.service import Caller, KeyService


class ModelAccess:
    """Who asks for hosted models and datasets, and whether that takes a key (GRID_MODELS_AUTH)."""

    def __init__(self, store: Store, clock: Clock, keys: KeyService, auth: str) -> None:
        self._store = store
        self._clock = clock
        self._keys = keys
        self._auth = auth or "none"

    def by_key(self, key: object, address: str, *, writes: bool = False, token: str | None = None) -> ModelCaller:
        """The holder of a key, or nobody in particular. A key that is given must be good.

        Raises MissingKey, InvalidKey, Forbidden, TooManyBadKeys.
        """
        if key is None or key == "":
            return self._anonymous(writes, token)
        return _model_caller(self._keys.authenticate(key, address, "client"), token)

    def by_id(self, key_id: str | None, *, writes: bool = False, token: str | None = None) -> ModelCaller:
        """The same for a socket that showed its key when it connected."""
        if key_id is None:
            return self._anonymous(writes, token)
        now = self._clock.now()
        caller = self._store.read(lambda tx: self._keys.require(tx, key_id, "client", now))
        return _model_caller(caller, token)

    def _anonymous(self, writes: bool, token: str | None) -> ModelCaller:
        if self._auth == "all" or (writes and self._auth == "write"):
            raise MissingKey()
        return ModelCaller(token=token)


def _model_caller(caller: Caller, token: str | None) -> ModelCaller:
    return ModelCaller(caller.key_id, caller.scopes, token)
