"""A Socket.IO client for tests: acks as return values, pushes as a list that can be waited for."""

import threading
import time
from typing import Any

import socketio
from bittensor_wallet import Keypair

from grid_node.identity.hotkeys import format_signature, message_bytes

WAIT = 20.0


class Socket:
    """One connection to one namespace."""

    def __init__(self, url: str, namespace: str = "/", **auth: Any) -> None:
        self.namespace = namespace
        self.pushed: list[tuple[str, Any]] = []
        self.refusal: Any = None
        self._changed = threading.Condition()
        self._client = socketio.Client(reconnection=False)
        self._client.on("*", self._heard, namespace=namespace)
        self._client.on("connect_error", self._refused, namespace=namespace)
        self._client.on("disconnect", lambda *_: self._heard("disconnect", None), namespace=namespace)
        try:
            self._client.connect(
                url, auth=auth or None, namespaces=[namespace], transports=["websocket"], wait_timeout=WAIT
            )
        except socketio.exceptions.ConnectionError:
            if self._client.eio.ws is not None:
                self._client.eio.ws.shutdown()
            raise
        self._transport = self._client.eio.ws

    def call(self, event: str, payload: Any = None, timeout: float = WAIT + 10) -> Any:
        return self._client.call(event, payload, namespace=self.namespace, timeout=timeout)

    def all(self, event: str) -> list[Any]:
        return [body for name, body in self.pushed if name == event]

    def wait_for(self, event: str, count: int = 1) -> list[Any]:
        """The pushes of this name, once there are `count` of them. Raises ConnectionError once they cannot come."""
        deadline = time.monotonic() + WAIT
        with self._changed:
            while len(found := self.all(event)) < count:
                if self.all("disconnect"):
                    raise ConnectionError(f"no {event}: {self.pushed}")
                assert self._changed.wait(deadline - time.monotonic()), f"no {event}: {self.pushed}"
        return found

    def close(self) -> None:
        self._client.disconnect()
        self._client.shutdown()
        self._transport.shutdown()  # the client forgets it where the server was killed

    def _heard(self, event: str, body: Any = None) -> None:
        with self._changed:
            self.pushed.append((event, body))
            self._changed.notify_all()

    def _refused(self, data: Any) -> None:
        self.refusal = data
        self._heard("connect_error", data)


def worker(url: str, key: str, name: str, **offer: Any) -> Socket:
    """An authenticated worker of a private grid."""
    socket = Socket(url, "/worker")
    answer = socket.call("authenticate", {"api_key": key, "name": name, "kinds": ["text"], **offer})
    assert answer["success"], answer
    return socket


def authenticate_message(challenge: dict[str, Any], keypair: Keypair, **changes: Any) -> dict[str, Any]:
    """The answer of a hotkey to a challenge, signed after `changes`."""
    message = {
        "message_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "sender_hotkey": keypair.ss58_address,
        "receiver_hotkey": challenge["sender_hotkey"],
        "timestamp": challenge["timestamp"],
        "message_type": "authenticate",
        "nonce": challenge["nonce"],
        "client_nonce": "ab" * 32,
        "kinds": ["text"],
        **changes,
    }
    return {**message, "signature": format_signature(keypair.sign(message_bytes(message)))}
