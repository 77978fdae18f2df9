"""Proving a hotkey on a new connection: the node sends a nonce, the peer signs it. Knows no transport."""

import secrets
from dataclasses import dataclass, field
from typing import Any

from grid_node.clock import Clock, rfc3339
from grid_node.errors import AuthFailed, StaleTimestamp, WrongReceiver
from grid_node.identity.hotkeys import check_message, decode_hotkey
from grid_node.identity.keys import RandomBytes
from grid_node.identity.node_key import NodeKey
from grid_node.identity.schemas import Authenticate, Introduction, load_message
from grid_node.identity.standing import Metagraph, Standing, admit
from grid_node.settings import Settings

_AUTHENTICATE = Authenticate()
_INTRODUCTION = tuple(Introduction().fields)


@dataclass(slots=True)
class Challenge:
    """One connection's nonce; good for one attempt, whatever comes of it."""

    message: dict[str, Any]
    """What is sent as event `challenge`."""
    expires_at: float
    _unused: list[str] = field(repr=False)

    def take(self) -> str | None:
        """The nonce, the first time; then None. Two attempts at once get it once."""
        try:
            return self._unused.pop()
        except IndexError:
            return None


@dataclass(frozen=True, slots=True)
class Authenticated:
    """A peer that proved its hotkey and may come in."""

    public_key: bytes
    hotkey: str
    standing: Standing
    client_nonce: str
    introduction: dict[str, Any]
    """The optional members that it sent: kinds, formats, max_parallel, client, compression, position."""


class Authenticator:
    """Makes challenges and judges the answers."""

    def __init__(
        self,
        node_key: NodeKey,
        metagraph: Metagraph,
        clock: Clock,
        settings: Settings,
        random: RandomBytes = secrets.token_bytes,
    ) -> None:
        self._node_key = node_key
        self._metagraph = metagraph
        self._clock = clock
        self._settings = settings
        self._random = random

    def challenge(self) -> Challenge:
        nonce = self._random(32).hex()
        lasts = self._settings.websocket_auth_timeout
        message = self._node_key.base_fields("challenge", self._clock)
        message |= {"nonce": nonce, "expires_in": int(lasts) if lasts == int(lasts) else lasts}
        return Challenge(message, self._clock.now() + lasts, [nonce])

    def check(self, challenge: Challenge, payload: object) -> Authenticated:
        """Judge an `authenticate`, in this order; the first failure is raised:

        InvalidMessage (shape), InvalidHotkey, WrongReceiver, AuthFailed (not this connection's own unused nonce),
        StaleTimestamp, BadSignature, NotRegistered, Blacklisted. ChainUnavailable when standing is not known.
        """
        nonce = challenge.take()
        message = load_message(_AUTHENTICATE, payload)
        public_key = decode_hotkey(message["sender_hotkey"])
        if message["receiver_hotkey"] != self._node_key.hotkey:
            raise WrongReceiver()
        now = self._clock.now()
        if nonce is None or now >= challenge.expires_at or not secrets.compare_digest(nonce, message["nonce"]):
            raise AuthFailed()
        check_skew(message["timestamp"], now, self._settings.websocket_message_skew)
        check_message(public_key, payload)  # type: ignore[arg-type]  # load_message let only an object through
        return Authenticated(
            public_key=public_key,
            hotkey=message["sender_hotkey"],
            standing=admit(self._metagraph, public_key),
            client_nonce=message["client_nonce"],
            introduction={name: message[name] for name in _INTRODUCTION if name in message},
        )

    def answer(self, peer: Authenticated, session_id: str, **members: Any) -> dict[str, Any]:
        """The signed `authenticated` message; `members` are what the connection's contract adds (no floats)."""
        message = self._node_key.base_fields("authenticated", self._clock)
        message |= {
            "receiver_hotkey": peer.hotkey,
            "client_nonce": peer.client_nonce,
            "success": True,
            "session_id": session_id,
            "uid": peer.standing.uid,
            **members,
        }
        return self._node_key.sign_message(message)


def check_skew(at: float, now: float, most: float) -> None:
    """Raises StaleTimestamp unless `at` is within `most` seconds of now, before or after."""
    if abs(now - at) > most:
        raise StaleTimestamp(server_time=rfc3339(now))
