"""The games as the node's updates tell them: verified, in order, each applied once.

An update is `delta` (what changed, seq = last + 1) or a part of a `snapshot` (whole games under one seq).
"""

from __future__ import annotations

import copy
import json
import re
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

from grid_client.clock import seconds_of
from grid_client.errors import GridError
from grid_client.receipts import LARGEST
from grid_client.signing import Keypair, signing_input

INFLATED_MAX = 16 * 1024 * 1024
"""Bytes of one update, however small it came."""
PARTS_MAX = 10_000
_EPOCH = re.compile(r"[0-9a-f]{16}")
_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{128}")
_WHOLE = frozenset({"team_a", "team_b", "event_start_date", "team_a_odds", "team_b_odds"})
"""Without these a game is not known: its beginning was never sent."""


class Position(NamedTuple):
    """A place in the node's update log."""

    epoch: str
    seq: int

    @classmethod
    def read(cls, body: object) -> Position | None:
        """From the members `epoch` and `seq` of a message; None when they are no position."""
        if not isinstance(body, dict):
            return None
        epoch, seq = body.get("epoch"), body.get("seq")
        if not isinstance(epoch, str) or not _EPOCH.fullmatch(epoch) or not _is_seq(seq):
            return None
        return cls(epoch, seq)  # type: ignore[arg-type]  # _is_seq


@dataclass(frozen=True, slots=True)
class GameUpdate:
    """What a miner's callback gets. `kind` is `delta`, or `snapshot` when `games` is everything there is."""

    kind: str
    position: Position
    games: dict[str, dict[str, Any]]
    """The games that changed, each whole."""
    changes: dict[str, dict[str, Any]]
    """The members that changed, as the node sent them."""


class Step(Enum):
    """What became of a message."""

    APPLIED = auto()
    PART = auto()
    """Of a snapshot that is not complete."""
    OLD = auto()
    """It was applied before."""
    GAP = auto()
    """Something before it is missing, or the log is another one: resume."""
    IGNORED = auto()
    """It comes from a source that is not followed any more."""


class InvalidUpdate(GridError):
    """The message is not the node's, or was changed on its way."""

    def __init__(self, reason: str) -> None:
        super().__init__("invalid_update", reason)


class GameFeed:
    """Games and position, followed from one source at a time: a socket, or the long poll.

    `on_change` is told of each update in their order, before the next one is applied; it must not ask the feed.
    """

    def __init__(self, node_hotkey: str, verifier: Keypair, on_change: Callable[[GameUpdate], None]) -> None:
        self._on_change = on_change
        self._node_hotkey = node_hotkey
        self._verifier = verifier
        self._lock = threading.Lock()
        self._source: object = None
        self._position: Position | None = None
        self._games: dict[str, dict[str, Any]] = {}
        self._parts: dict[int, dict[str, Any]] = {}
        self._parts_of: tuple[Position, int] | None = None

    @property
    def position(self) -> Position | None:
        """None until the first snapshot is complete."""
        with self._lock:
            return self._position

    @property
    def games(self) -> dict[str, dict[str, Any]]:
        """A copy of all games by id."""
        with self._lock:
            return copy.deepcopy(self._games)

    def whole(self) -> GameUpdate | None:
        """Everything there is, as one snapshot; None before the first."""
        with self._lock:
            games = copy.deepcopy(self._games)
            return self._position and GameUpdate("snapshot", self._position, games, games)

    def starts_at(self, game_id: object) -> float | None:
        """When the game begins, in seconds since 1970; None for a game that is not known."""
        with self._lock:
            game = self._games.get(game_id) if isinstance(game_id, str) else None
            return seconds_of(game["event_start_date"]) if game else None

    # --- sources --------------------------------------------------------------------------------------------------

    def follow(self, source: object) -> Position | None:
        """Take updates from this source alone, and from here on: whatever another one still has in hand is late."""
        with self._lock:
            self._source = source
            self._forget_parts()
            return self._position

    def follow_unless(self, source: object) -> bool:
        """`follow`, unless somebody else is followed."""
        with self._lock:
            if self._source not in (None, source):
                return False
            if self._source is None:
                self._forget_parts()
            self._source = source
            return True

    def leave(self, source: object) -> None:
        """Follow nobody, if this source was followed."""
        with self._lock:
            if self._source is source:
                self._source = None

    # --- updates --------------------------------------------------------------------------------------------------

    def apply(self, source: object, message: object) -> Step:
        """Take one message. Raises InvalidUpdate before anything is changed."""
        update = self._verified(unpacked(message))
        position = Position(update["epoch"], update["seq"])
        with self._lock:
            if self._source is not source:
                return Step.IGNORED
            if update["kind"] == "snapshot":
                return self._take_part(position, update)
            return self._take_delta(position, update["updated_games"])

    def _verified(self, message: dict[str, Any]) -> dict[str, Any]:
        _check_shape(message, self._node_hotkey)
        try:
            genuine = self._verifier.verify(signing_input(message), bytes.fromhex(message["signature"][2:]))
        except (ValueError, TypeError, AttributeError, RecursionError):
            genuine = False
        if not genuine:
            raise InvalidUpdate("the signature is not the node's, or something was changed")
        return message

    def _take_delta(self, position: Position, changes: dict[str, Any]) -> Step:
        last = self._position
        if last is None or last.epoch != position.epoch or position.seq > last.seq + 1:
            return Step.GAP
        if position.seq <= last.seq:
            return Step.OLD
        changed = {}
        for game_id, change in changes.items():
            game = {**self._games.get(game_id, {}), **change}
            if game.keys() >= _WHOLE:
                self._games[game_id] = changed[game_id] = game
        self._position = position
        self._on_change(GameUpdate("delta", position, copy.deepcopy(changed), changes))
        return Step.APPLIED

    def _take_part(self, position: Position, update: dict[str, Any]) -> Step:
        if self._parts_of != (position, update["parts"]):
            self._forget_parts()
            self._parts_of = (position, update["parts"])
        self._parts[update["part"]] = update["updated_games"]
        if len(self._parts) < update["parts"]:
            return Step.PART
        games = {game_id: game for part in self._parts.values() for game_id, game in part.items()}
        self._games = games
        self._position = position
        self._forget_parts()
        self._on_change(GameUpdate("snapshot", position, copy.deepcopy(games), copy.deepcopy(games)))
        return Step.APPLIED

    def _forget_parts(self) -> None:
        self._parts, self._parts_of = {}, None


def unpacked(message: object) -> dict[str, Any]:
    """The update itself, inflated if it was compressed. Raises InvalidUpdate."""
    if not isinstance(message, dict):
        raise InvalidUpdate("it is no object")
    if "encoding" not in message:
        return message
    try:
        inner = json.loads(_inflated(message))
    except (ValueError, RecursionError):
        raise InvalidUpdate("the inflated bytes are no JSON") from None
    if not isinstance(inner, dict):
        raise InvalidUpdate("it is no object")
    return inner


def _inflated(message: dict[str, Any]) -> bytes:
    size, data = message.get("raw_size"), message.get("data")
    if message["encoding"] != "zlib" or not isinstance(data, bytes) or not _is_seq(size):
        raise InvalidUpdate("it is compressed in a way that was not offered")
    if not size or size > INFLATED_MAX or len(data) > INFLATED_MAX:
        raise InvalidUpdate("it is too large")
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(data, size + 1)
    except zlib.error:
        raise InvalidUpdate("it does not inflate") from None
    if len(raw) != size or not inflate.eof or inflate.unused_data:
        raise InvalidUpdate("it does not inflate to the size that was announced")
    return raw


def _check_shape(message: dict[str, Any], node_hotkey: str) -> None:
    if message.get("message_type") != "game_update" or message.get("sender_hotkey") != node_hotkey:
        raise InvalidUpdate("it is no update of this node")
    signature = message.get("signature")
    if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
        raise InvalidUpdate("it is not signed")
    games = message.get("updated_games")
    if Position.read(message) is None or not isinstance(games, dict):
        raise InvalidUpdate("it has no position or no games")
    if not all(isinstance(game, dict) for game in games.values()):
        raise InvalidUpdate("a game is no object")
    if message.get("kind") == "snapshot":
        part, parts = message.get("part"), message.get("parts")
        if not (_is_seq(part) and _is_seq(parts) and 1 <= part <= parts <= PARTS_MAX):  # type: ignore[operator]
            raise InvalidUpdate("it is no part of a snapshot")
        if not all(game.keys() >= _WHOLE for game in games.values()):
            raise InvalidUpdate("a game of a snapshot is not whole")
    elif message.get("kind") != "delta":
        raise InvalidUpdate("it is of an unknown kind")


def _is_seq(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST
