"""The sockets of a namespace that nobody enters without an API key: by sid and by key."""

from collections import defaultdict
from typing import Any

from grid_node.errors import MissingKey, ShuttingDown
from grid_node.runners.ports import RunnerCaller
from grid_node.services import Services
from grid_node.web import key_of_environ


class KeySessions:
    """Who is behind each socket. The key is shown once, at connect, and looked up anew at each event."""

    def __init__(self, services: Services, scope: str) -> None:
        self._services = services
        self._scope = scope
        self._keys: dict[str, str] = {}
        self._by_key: dict[str, set[str]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._keys)

    def connect(self, sid: str, environ: dict[str, Any], auth: Any) -> None:
        """`auth` is `{"key"}`; the headers of HTTP do as well. Raises ShuttingDown, MissingKey, RunnerKeyInvalid,
        TooManyBadKeys, WrongScope."""
        if self._services.draining:
            raise ShuttingDown()
        given = auth.get("key") if isinstance(auth, dict) else None
        key = given if given is not None else key_of_environ(environ)
        access = self._services.running.access
        owner = access.by_key(key, environ.get("REMOTE_ADDR", ""), self._scope).owner
        self._keys[sid] = owner
        self._by_key[owner].add(sid)

    def disconnect(self, sid: str, _reason: str) -> None:
        owner = self._keys.pop(sid, None)
        if owner is None:
            return
        self._by_key[owner].discard(sid)
        if not self._by_key[owner]:
            del self._by_key[owner]

    def caller(self, sid: str) -> RunnerCaller:
        """Raises MissingKey for a socket that is gone, RunnerKeyInvalid and WrongScope when its key is no longer good
        for this."""
        owner = self._keys.get(sid)
        if owner is None:
            raise MissingKey()
        return self._services.running.access.by_id(owner, self._scope)

    def keys(self) -> set[str]:
        return set(self._by_key)

    def of_key(self, key_id: str) -> list[str]:
        return list(self._by_key.get(key_id, ()))

    def sids(self) -> list[str]:
        return list(self._keys)
