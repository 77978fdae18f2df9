"""What a miner hands in at once: one message or a batch, checked as far as that goes without the database."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from grid_node.clock import rfc3339
from grid_node.database import Transaction
from grid_node.errors import (
    GridError,
    InvalidMessage,
    PayloadTooLarge,
    SenderMismatch,
    StaleTimestamp,
    UidMismatch,
    WrongReceiver,
)
from grid_node.predictions.messages import Prediction, check_base, read_prediction
from grid_node.predictions.pending import Answer, Pending, error_text
from grid_node.predictions.ports import Miner, Signatures
from grid_node.predictions.turns import in_turns
from grid_node.settings import Settings

log = logging.getLogger(__name__)

Refusal = Callable[[], GridError | None]
Guard = Callable[[Transaction], None]
ACCEPTED, REJECTED = 200, 422
RETRYABLE = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Reply:
    """What becomes of one message: a receipt, or an error."""

    text: str
    status: int
    code: str
    replayed: bool = False
    retry_after: float | None = None

    @classmethod
    def of_error(cls, error: GridError) -> "Reply":
        return cls(error_text(error), error.status, error.code, retry_after=error.data.get("retry_after"))


@dataclass(slots=True)
class Item:
    """One message: a prediction to be judged, or the reply that it got already."""

    prediction: Prediction | None
    refused: Reply | None = None
    charged: bool = False
    """Whether it took its token: a unit of work may run twice."""


@dataclass(slots=True)
class Submission:
    """The messages of one event or one request. `replies` is what the newest run of the unit of work said."""

    miner: Miner
    messages: list[object]
    """As they came; let go of once they are checked."""
    is_batch: bool
    transport: str
    refusal: Refusal
    guard: Guard | None
    size: int = 0
    """How many messages."""
    items: list[Item] = field(default_factory=list)
    is_checked: bool = False
    received_at: float = 0.0
    """The node's clock when the whole of it was there, in seconds: the time that counts in every rule."""
    expires: float = 0.0
    """When nobody waits any more, in seconds of the monotonic clock."""
    pending: Pending = field(default_factory=Pending)
    replies: list[Reply] = field(default_factory=list)
    refused: Reply | None = None
    """The one answer to all of it: a request that was used before, a miner that may predict no more."""

    def __post_init__(self) -> None:
        self.size = len(self.messages)

    def answer(self) -> Answer:
        codes = tuple(reply.code for reply in self.replies)
        if self.refused is not None or not self.is_batch:
            reply = self.refused or self.replies[0]
            return Answer(reply.text, reply.status, reply.replayed, codes, self._confirmed(), reply.retry_after)
        results = ",".join(reply.text for reply in self.replies)
        replayed = all(reply.replayed for reply in self.replies)
        return Answer(f'{{"success":true,"results":[{results}]}}', ACCEPTED, replayed, codes, self._confirmed())

    def _confirmed(self) -> tuple[str, ...]:
        pairs = zip(self.items, self.replies, strict=True)
        return tuple(
            item.prediction.prediction_id
            for item, reply in pairs
            if item.prediction is not None and reply.status in (ACCEPTED, REJECTED)
        )

    def refuse(self, error: GridError) -> None:
        """The same error for all of it, and nothing of it is kept."""
        self.pending.finish(Answer.of_error(error))


class Reading:
    """Checks what needs no database, in the order of the protocol: the first failure is the answer."""

    def __init__(self, settings: Settings, node_hotkey: str, signatures: Signatures) -> None:
        self._settings = settings
        self._node_hotkey = node_hotkey
        self._signatures = signatures

    def open(self, miner: Miner, payload: object, transport: str, refusal: Refusal, guard: Guard | None) -> Submission:
        """Nothing is checked yet. Raises InvalidMessage and PayloadTooLarge for what is no message and no batch."""
        is_batch = isinstance(payload, dict) and "messages" in payload and "prediction" not in payload
        messages = self._batch(payload) if is_batch else [payload]
        return Submission(miner, messages, is_batch, transport, refusal, guard)

    def check(self, submission: Submission) -> None:
        """Fill in one item a message. What is costly to check (many numbers, many signatures) lets others run in
        between."""
        messages, submission.messages = submission.messages, []
        for message in in_turns(messages):
            submission.items.append(self._item(submission.miner, message, submission.received_at))

    def _batch(self, payload: Any) -> list[object]:
        messages = payload["messages"]
        if not isinstance(messages, list) or not messages:
            raise InvalidMessage(fields={"messages": ["must be a list that is not empty"]})
        most = self._settings.prediction_max_batch
        if len(messages) > most:
            raise PayloadTooLarge("Too many messages in one batch", limit=most)
        return messages

    def _item(self, miner: Miner, message: object, now: float) -> Item:
        try:
            return Item(self._checked(miner, message, now))
        except GridError as error:
            return Item(None, Reply.of_error(error))
        except Exception:
            log.exception("a prediction could not be checked")
            return Item(None, Reply.of_error(GridError()))

    def _checked(self, miner: Miner, message: Any, now: float) -> Prediction:
        timestamp = check_base(message, "prediction")
        self._check_size(message)
        if message["sender_hotkey"] != miner.address:
            self._signatures.decode(message["sender_hotkey"])
            raise SenderMismatch()
        if message.get("receiver_hotkey") != self._node_hotkey:
            raise WrongReceiver()
        if abs(now - timestamp) > self._settings.websocket_message_skew:
            raise StaleTimestamp(server_time=rfc3339(now))
        if miner.public_key is not None:
            self._signatures.check(miner.public_key, message)
        prediction = read_prediction(message.get("prediction"))
        if prediction.miner_uid is not None and miner.uid is not None and prediction.miner_uid != miner.uid:
            raise UidMismatch()
        return prediction

    def _check_size(self, message: object) -> None:
        """In the shortest form, which no white space lengthens. Raises PayloadTooLarge, InvalidMessage."""
        try:
            size = len(orjson.dumps(message))
        except (TypeError, RecursionError):
            raise InvalidMessage("The message has no canonical form") from None
        limit = self._settings.prediction_max_bytes
        if size > limit:
            raise PayloadTooLarge(limit=limit)
