"""Connections: who is behind a socket, and how errors become acks. One place for every namespace."""

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from grid_node.errors import GridError, MissingKey
from grid_node.services import Services
from grid_node.streams.service import Subscription
from grid_node.web import key_of_environ

log = logging.getLogger(__name__)


def error_to_ack(error: Exception) -> dict[str, Any]:
    """Every error as the body that HTTP would answer; a fault of ours is logged and told without detail."""
    if isinstance(error, GridError):
        return error.body()
    log.error("an event failed", exc_info=error)
    return GridError().body()


@dataclass(eq=False)
class ClientSession:
    """A socket of the default namespace. `key_id` is None for one that connected without a key."""

    sid: str
    address: str
    key_id: str | None
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    closed: bool = False

    def follow(self, subscription: Subscription) -> None:
        """Hold one subscription for each stream; a newer one takes the place of the older."""
        if self.closed:
            subscription.close()
            return
        older = self.subscriptions.pop(subscription.stream, None)
        if older is not None:
            older.close()
        self.subscriptions[subscription.stream] = subscription

    def drop(self, stream: str) -> None:
        """Nothing more will come on this stream."""
        subscription = self.subscriptions.pop(stream, None)
        if subscription is not None:
            subscription.close()

    def close(self) -> None:
        self.closed = True
        for subscription in self.subscriptions.values():
            subscription.close()
        self.subscriptions.clear()


class ClientSessions:
    """The sockets of the default namespace, by sid and by key."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sessions: dict[str, ClientSession] = {}
        self._by_key: dict[str, set[str]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._sessions)

    def connect(self, sid: str, environ: dict[str, Any], auth: Any) -> None:
        """Let the socket in; without a key it may still use what needs none. Raises for a wrong key."""
        address = environ.get("REMOTE_ADDR", "")
        given = auth.get("api_key") if isinstance(auth, dict) else None
        key = given if given is not None else key_of_environ(environ)
        key_id = None if key is None else self._services.keys.authenticate(key, address).key_id
        self._sessions[sid] = ClientSession(sid, address, key_id)
        if key_id is not None:
            self._by_key[key_id].add(sid)

    def disconnect(self, sid: str, _reason: str) -> None:
        session = self._sessions.pop(sid, None)
        if session is None:
            return
        session.close()
        if session.key_id is not None:
            self._by_key[session.key_id].discard(sid)
            if not self._by_key[session.key_id]:
                del self._by_key[session.key_id]

    def get(self, sid: str) -> ClientSession | None:
        return self._sessions.get(sid)

    def key_id(self, sid: str) -> str | None:
        """The key that the socket showed when it connected."""
        session = self._sessions.get(sid)
        return None if session is None else session.key_id

    def keyed(self, sid: str) -> ClientSession:
        """The session of a socket that has a key; raises MissingKey."""
        session = self._sessions.get(sid)
        if session is None or session.key_id is None:
            raise MissingKey()
        return session

    def keys(self) -> set[str]:
        return set(self._by_key)

    def of_key(self, key_id: str) -> list[str]:
        return list(self._by_key.get(key_id, ()))

    def sids(self) -> list[str]:
        return list(self._sessions)
