"""Events of `/chain`: a subnet of the chain. Acks are the bodies that HTTP answers."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import orjson
from marshmallow import ValidationError, fields
from socketio.exceptions import ConnectionRefusedError as Refused

from events.publisher import CHAIN, Publisher
from grid_node.chain.ports import Block
from grid_node.chain.pylon import Identity
from grid_node.chain.refusals import one_invalid, refusal
from grid_node.chain.schemas import CommitmentRequest, Request, Text, WeightsRequest, load
from grid_node.chain.told import Told
from grid_node.errors import (
    ChainBodyTooLarge,
    ChainIdentityBound,
    ChainLoginNeeded,
    ChainNotFound,
    GridError,
    MessageTooLarge,
    ShuttingDown,
)
from grid_node.services import Services
from grid_node.wire.events import Ack, Answer, Events, Handler, JsonText, Later
from grid_node.wire.server import WireServer

log = logging.getLogger(__name__)

SELF = "self"
"""Stands for the hotkey of the socket's identity."""
LATEST, RECENT = "latest", "recent"
TOO_LONG = "Answer exceeds the message limit. Use the HTTP route."


class Whole(fields.Integer):
    """A JSON integer of at least 0."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if type(value) is not int:
            raise ValidationError("Input should be a valid integer")
        if value < 0:
            raise ValidationError("Input should be greater than or equal to 0")
        return value


class BlockName(fields.Raw):
    """A number, or one of the words that are allowed."""

    def __init__(self, *words: str, **kwargs: Any) -> None:
        super().__init__(load_default=LATEST, **kwargs)
        self._words = words

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if value in self._words or (type(value) is int and value >= 0):
            return value
        raise ValidationError(f"Input should be a block number or one of: {', '.join(self._words)}")


_NULL: dict[str, Any] = {"required": "Field required"}


class SubnetSchema(Request):
    netuid = Whole(load_default=None, metadata={"description": "an identity's socket omits it"})


class NeuronsSchema(SubnetSchema):
    block = BlockName(LATEST, RECENT, metadata={"description": "`latest`, `recent` or a number"})


class ValidatorsSchema(SubnetSchema):
    block = BlockName(LATEST, metadata={"description": "`latest` or a number"})


class HotkeySchema(SubnetSchema):
    hotkey = Text(load_default=None, metadata={"description": "`self`: the identity's; absent: all"})


class ExtrinsicSchema(Request):
    block = Whole(required=True, error_messages=_NULL)
    index = Whole(required=True, error_messages=_NULL)


NEURONS, VALIDATORS, HOTKEY, EXTRINSIC = NeuronsSchema(), ValidatorsSchema(), HotkeySchema(), ExtrinsicSchema()
WEIGHTS, COMMITMENT, NOTHING = WeightsRequest(), CommitmentRequest(), Request()


class ChainSocket(NamedTuple):
    """Who is behind a socket; `identity` is None on open access. The token was configuration, so it stays good."""

    identity: Identity | None


class ChainEvents:
    """`block|extrinsic|neurons|validators|commitments|certificates|weights_status|set_weights|set_commitment|
    subscribe_heads`; pushes `head`."""

    def __init__(self, services: Services, server: WireServer, publisher: Publisher) -> None:
        self._services = services
        self._chain = services.chain
        self._publisher = publisher
        self._ack_max = services.settings.message_max
        self._sockets: dict[str, ChainSocket] = {}
        self._subscribed: set[str] = set()
        server.message_limits[CHAIN] = services.settings.chain_body_max_bytes
        server.error_bodies[CHAIN] = partial(self._body, name="message")
        services.chain.reads.watch_heads(self.push_head)

    def __len__(self) -> int:
        return len(self._sockets)

    def register(self, events: Events) -> None:
        events.fallback(_unknown)
        events.on_connect(self.connect)
        events.on_disconnect(self.disconnect)
        handlers: tuple[tuple[str, Handler], ...] = (
            ("block", self.block),
            ("extrinsic", self.extrinsic),
            ("neurons", self.neurons),
            ("validators", self.validators),
            ("commitments", self.commitments),
            ("certificates", self.certificates),
            ("weights_status", self.weights_status),
            ("set_weights", self.set_weights),
            ("set_commitment", self.set_commitment),
            ("subscribe_heads", self.subscribe_heads),
        )
        for name, handler in handlers:
            events.on(name, self._telling(name, handler), waits=True)

    # --- sockets ----------------------------------------------------------------------------------------------

    def connect(self, sid: str, environ: dict[str, Any], auth: Any) -> None:
        """`auth` is `{"token"}` or `{"identity", "token"}`. What is refused carries the body that HTTP answers."""
        try:
            self._sockets[sid] = ChainSocket(self._admit(environ.get("REMOTE_ADDR", ""), auth))
        except Exception as error:  # noqa: BLE001 the boundary: _body logs what is ours
            body = self._body(error, "connect")
            raise Refused(body["detail"], body) from None

    def _admit(self, address: str, auth: Any) -> Identity | None:
        if self._services.draining:
            raise ShuttingDown()
        given = auth if isinstance(auth, dict) else {}
        access, token = self._chain.access, given.get("token")
        if given.get("identity") is not None:
            return access.by_token(given["identity"], token, address)
        access.open_token(token, address)
        return None

    def disconnect(self, sid: str, _reason: str) -> None:
        self._sockets.pop(sid, None)
        self._subscribed.discard(sid)

    def sids(self) -> list[str]:
        return list(self._sockets)

    def keys(self) -> set[str]:
        """API keys do not open this namespace."""
        return set()

    def of_key(self, _key_id: str) -> list[str]:
        return []

    def push_head(self, block: Block) -> None:
        """Tell whoever asked for it; never waits."""
        if self._subscribed:
            text = _head_text(block)
            for sid in list(self._subscribed):
                self._publisher.head(sid, text)

    # --- events -----------------------------------------------------------------------------------------------

    @property
    def _timeout(self) -> float:
        return float(self._chain.pylon.default_request_timeout_seconds)

    def block(self, _sid: str, payload: Any) -> Ack:
        """The newest block."""
        load(NOTHING, payload)
        return self._told(self._chain.reads.latest_block(self._timeout))

    def extrinsic(self, _sid: str, payload: Any) -> Ack:
        given = load(EXTRINSIC, payload)
        return self._told(self._chain.reads.extrinsic(given["block"], given["index"], self._timeout))

    def neurons(self, sid: str, payload: Any) -> Ack:
        given = load(NEURONS, payload)
        netuid = self._netuid(sid, given)
        if given["block"] == RECENT:
            return self._told(self._chain.reads.recent(netuid, self._timeout))
        return self._metagraph("neurons", netuid, given["block"])

    def validators(self, sid: str, payload: Any) -> Ack:
        given = load(VALIDATORS, payload)
        return self._metagraph("validators", self._netuid(sid, given), given["block"])

    def commitments(self, sid: str, payload: Any) -> Ack:
        given, reads = load(HOTKEY, payload), self._chain.reads
        return self._of_hotkey(sid, given, "commitments", reads.commitment, reads.own_commitment)

    def certificates(self, sid: str, payload: Any) -> Ack:
        given, reads = load(HOTKEY, payload), self._chain.reads
        return self._of_hotkey(sid, given, "certificates", reads.certificate, reads.own_certificate)

    def weights_status(self, sid: str, payload: Any) -> Ack:
        identity = self._identity(sid)
        load(NOTHING, payload)
        return self._chain.weights.status(identity)

    def set_weights(self, sid: str, payload: Any) -> Ack:
        identity = self._identity(sid)
        given = load(WEIGHTS, payload)
        return self._chain.weights.put(identity, given["weights"], self._timeout)

    def set_commitment(self, sid: str, payload: Any) -> Ack:
        identity = self._identity(sid)
        given = load(COMMITMENT, payload)
        return self._chain.writes.set_commitment(identity, given["commitment"], self._timeout)

    def subscribe_heads(self, sid: str, payload: Any) -> Answer:
        """Push the newest block, and each that follows."""
        load(NOTHING, payload)
        later = Later()
        later.finish({"detail": "Subscribed to heads."}, lambda: self._subscribe(sid))
        return later

    def _subscribe(self, sid: str) -> None:
        if sid not in self._sockets:
            return
        self._subscribed.add(sid)
        head = self._chain.reads.head
        if head is not None:
            self._publisher.head(sid, _head_text(head))

    # --- what they share --------------------------------------------------------------------------------------

    def _metagraph(self, kind: str, netuid: int, block: Any) -> Ack:
        reads = self._chain.reads
        if block == LATEST:
            return self._told(reads.latest(kind, netuid, self._timeout))
        return self._told(reads.at(kind, netuid, block, self._timeout))

    def _of_hotkey(
        self, sid: str, given: dict[str, Any], kind: str, one: Callable[..., Told], own: Callable[..., Told]
    ) -> Ack:
        netuid, hotkey, identity = self._netuid(sid, given), given["hotkey"], self._socket(sid).identity
        if hotkey is None:
            return self._metagraph(kind, netuid, LATEST)
        if hotkey == SELF and identity is not None:
            return self._told(own(identity, self._timeout))
        return self._told(one(netuid, hotkey, self._timeout))

    def _identity(self, sid: str) -> Identity:
        """Raises ChainLoginNeeded on open access."""
        identity = self._socket(sid).identity
        if identity is None:
            raise ChainLoginNeeded()
        return identity

    def _socket(self, sid: str) -> ChainSocket:
        """Raises ChainLoginNeeded for a socket that is gone."""
        found = self._sockets.get(sid)
        if found is None:
            raise ChainLoginNeeded()
        return found

    def _netuid(self, sid: str, given: dict[str, Any]) -> int:
        """Raises ChainInvalid, ChainIdentityBound."""
        identity, netuid = self._socket(sid).identity, given["netuid"]
        if identity is None:
            if netuid is None:
                raise one_invalid("netuid", "Field required")
            return int(netuid)
        if netuid not in (None, identity.netuid):
            raise ChainIdentityBound(f"Identity '{identity.name}' is bound to subnet {identity.netuid}, not {netuid}")
        return identity.netuid

    def _told(self, told: Told) -> Ack:
        if len(told.body) > self._ack_max:
            return ChainBodyTooLarge(TOO_LONG).body()
        return JsonText(told.body.decode())

    def _telling(self, name: str, handler: Handler) -> Callable[[str, Any], Answer]:
        """Refusals have the body that HTTP answers."""

        def told(sid: str, payload: Any) -> Answer:
            try:
                return handler(sid, payload)
            except Exception as error:  # noqa: BLE001 the boundary: _body logs what is ours
                return self._body(error, name)

        return told

    def _body(self, error: Exception, name: str) -> dict[str, Any]:
        code = error.code if isinstance(error, GridError) else GridError.code
        self._services.metrics.errors.labels(code).inc()
        if not isinstance(error, GridError):
            log.error("an event failed", exc_info=error)
        if isinstance(error, MessageTooLarge):
            error = ChainBodyTooLarge(f"Request body is larger than {error.data['limit']} bytes.")
        told = refusal(error, name)
        return told.body if told.retry_after is None else {**told.body, "retry_after": told.retry_after}


def _unknown(_sid: str, _name: str, _payload: Any) -> Ack:
    raise ChainNotFound


def _head_text(block: Block) -> str:
    return orjson.dumps(block.body()).decode()
