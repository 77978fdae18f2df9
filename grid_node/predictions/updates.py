"""GameUpdateMessages: each is signed once, and compressed once, whoever reads it."""

import json
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from grid_node.canonical import canonical
from grid_node.errors import InvalidMessage
from grid_node.fields import EPOCH_PATTERN, EPOCH_TEXT
from grid_node.predictions.ports import Signer

DELTA, SNAPSHOT = "delta", "snapshot"
_LARGEST = 2**53 - 1
_SIGNATURE_MEMBER = len('"signature":"",') + 130


class Position(NamedTuple):
    """A place in the update log: every entry up to `seq` is known."""

    epoch: str
    seq: int


def read_position(epoch: object, seq: object) -> Position:
    """A position from outside. Raises InvalidMessage with `fields`."""
    wrong: dict[str, list[str]] = {}
    if not (isinstance(epoch, str) and EPOCH_PATTERN.match(epoch)):
        wrong["epoch"] = [EPOCH_TEXT]
    if type(seq) is not int or not 0 <= seq <= _LARGEST:
        wrong["seq"] = ["must be a whole number, zero or more"]
    if wrong:
        raise InvalidMessage(fields=wrong)
    return Position(epoch, seq)  # type: ignore[arg-type]  # looked at above


class Update:
    """One GameUpdateMessage. It is signed when it is first read: a process that nobody listens to signs nothing."""

    __slots__ = ("_games", "_lock", "_packed", "_part", "_signer", "_text", "at", "position", "weight")

    def __init__(
        self,
        signer: Signer,
        position: Position,
        at: float,
        games: str | Mapping[str, Any],
        part: tuple[int, int] | None = None,
    ) -> None:
        """`games`: {game_id: members}, as JSON text or as JSON data; `part`: which of how many of a snapshot."""
        self.position = position
        self.at = at
        """When the change was made, in seconds since 1970."""
        self.weight = len(games) + 1024 if isinstance(games, str) else 0
        """About how many bytes of memory it takes."""
        self._signer = signer
        self._games: str | Mapping[str, Any] = games
        self._part = part
        self._lock = threading.Lock()
        self._text = ""
        self._packed = b""

    @property
    def seq(self) -> int:
        return self.position.seq

    @property
    def text(self) -> str:
        """The whole signed message, in its canonical form."""
        if not self._text:
            with self._lock:
                self._text = self._text or self._encode()
        return self._text

    @property
    def raw_size(self) -> int:
        """Bytes of `text` in UTF-8: what `packed` inflates to."""
        text = self.text
        return len(text) if text.isascii() else len(text.encode())

    @property
    def canonical_size(self) -> int:
        """Bytes that the signature covers: the canonical form of the message without it."""
        return self.raw_size - _SIGNATURE_MEMBER

    def packed(self) -> bytes:
        """zlib of `text`."""
        if not self._packed:
            raw = self.text.encode()
            with self._lock:
                self._packed = self._packed or zlib.compress(raw)
        return self._packed

    def _encode(self) -> str:
        games = json.loads(self._games) if isinstance(self._games, str) else self._games
        self._games = ""
        message = self._signer.base_fields("game_update")
        message |= {"epoch": self.position.epoch, "seq": self.position.seq, "updated_games": games}
        if self._part is None:
            message["kind"] = DELTA
        else:
            message |= {"kind": SNAPSHOT, "part": self._part[0], "parts": self._part[1]}
        return canonical(self._signer.signed(message)).decode()


class RecentUpdates:
    """The updates that were made or read last, bounded in number and in bytes. For any thread."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._room = most_bytes
        self._kept: OrderedDict[Position, Update] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, position: Position) -> Update | None:
        return self._kept.get(position)

    def add(self, update: Update) -> Update:
        """The update of this position that is kept: the first one that was added."""
        with self._lock:
            there = self._kept.get(update.position)
            if there is not None:
                return there
            self._kept[update.position] = update
            self._room -= update.weight
            while self._room < 0 or len(self._kept) > self._most:
                _, dropped = self._kept.popitem(last=False)
                self._room += dropped.weight
            return update
