"""A linear layer on shares: this node as crypto provider and as holder. Protocol: `grid_client.secure_linear`.

What is kept between two requests (parts of triples, sessions) is kept in this process, for minutes, and is used once:
a part that masked two inputs would give their difference away.
"""

import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Protocol

from grid_client.errors import GridError as PeerError
from grid_client.holders import checked_address
from grid_client.shares import HOLDERS_MAX, HOLDERS_MIN
from grid_client.tensor_files import DescriptorSource, NotTensors, TensorFile
from marshmallow import validate

from grid_node.blobs.store import Blobs, Offload
from grid_node.clock import Clock
from grid_node.compute.ring import Ring
from grid_node.errors import (
    ComputeUnavailable,
    InferenceTooLarge,
    InvalidPayload,
    MissingKey,
    NotFound,
    SharePeerNotAllowed,
)
from grid_node.fields import StrictInt, StrictText, load
from grid_node.hosting.reading import Reading
from grid_node.hosting.rights import ModelCaller
from grid_node.hosting.schemas import Strict
from grid_node.hosting.single_use import SingleUse
from grid_node.settings import Settings

METADATA_MAX = 64 * 1024
LENGTH_MAX = 1 << 20
_LENGTH = validate.Range(1, LENGTH_MAX)
_NAME = validate.Length(1, 4096)


class TripleSchema(Strict):
    """u [rows, inputs], v [inputs, outputs], z = u v."""

    rows = StrictInt(required=True, validate=_LENGTH)
    inputs = StrictInt(required=True, validate=_LENGTH)
    outputs = StrictInt(required=True, validate=_LENGTH)
    holders = StrictInt(load_default=HOLDERS_MIN, validate=validate.Range(HOLDERS_MIN, HOLDERS_MAX))


class MaskSchema(Strict):
    """Metadata of the file with `x`."""

    share = StrictText(required=True, validate=_NAME)
    weight = StrictText(required=True, validate=_NAME)
    bias = StrictText(load_default=None, validate=_NAME)
    provider = StrictText(required=True, validate=_NAME)
    triple = StrictText(required=True, validate=validate.Regexp(r"^[0-9a-f]{32}\Z"))
    token = StrictText(required=True, validate=validate.Regexp(r"^[0-9a-f]{64}\Z"))


TRIPLE, MASK = TripleSchema(), MaskSchema()


class PartSource(Protocol):
    """A crypto provider, as `grid_client.triples.Provider` is one. Raises PeerError."""

    def fetch(self, triple: str, index: int, token: str) -> bytes: ...

    def __enter__(self) -> "PartSource": ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True)
class _Part:
    file: BinaryIO
    token: str
    asked_by: str
    """The key that asked for the triple: the one that must not have its parts."""


@dataclass(frozen=True)
class _Session:
    """A mask that was handed out, until d and e come back."""

    file: BinaryIO
    share: BinaryIO
    bias: str | None
    precision: int
    first: bool
    caller: tuple[str, str | None]


class Triples:
    """The crypto provider."""

    def __init__(
        self, clock: Clock, settings: Settings, ring: Ring, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._settings = settings
        self._ring = ring
        self._random = random
        self._kept = SingleUse(clock)

    def make(self, caller: ModelCaller, payload: Any) -> dict[str, Any]:
        """Raises InvalidPayload, MissingKey, InferenceTooLarge, QueueFull, ComputeUnavailable, InferenceTimeout."""
        if caller.is_anonymous:
            raise MissingKey()
        wanted = load(TRIPLE, payload)
        rows, inputs, outputs = wanted["rows"], wanted["inputs"], wanted["outputs"]
        size = 8 * (rows * inputs + inputs * outputs + rows * outputs)
        if size > self._settings.infer_max_bytes:
            raise InferenceTooLarge(limit=self._settings.infer_max_bytes)
        name = self._random(16).hex()
        files = self._ring.triple(rows, inputs, outputs, wanted["holders"])
        tokens = [self._random(32).hex() for _ in files]
        parts = {
            f"{name}/{index}": _Part(file, token, caller.key_id)
            for index, (file, token) in enumerate(zip(files, tokens, strict=True))
        }
        self._kept.put(parts)
        return {"success": True, "triple": name, "tokens": tokens}

    def fetch(self, caller: ModelCaller, triple: str, index: str) -> BinaryIO:
        """One part, once: for whoever shows its token, and a key that is not the client's. Raises NotFound."""

        def is_for(part: _Part) -> bool:
            shown = (caller.token or "").encode("utf-8", "replace")
            is_other = not caller.is_anonymous and caller.key_id != part.asked_by
            return is_other and hmac.compare_digest(shown, part.token.encode())

        part: _Part = self._kept.take(f"{triple}/{index}", is_for)
        return part.file


class SecureLinear:
    """A holder. `provider` makes the connection to a crypto provider, which must be one of the peers."""

    def __init__(
        self,
        clock: Clock,
        reading: Reading,
        blobs: Blobs,
        offload: Offload,
        ring: Ring,
        peers: dict[str, str],
        provider: Callable[[str, str], PartSource],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._reading = reading
        self._blobs = blobs
        self._offload = offload
        self._ring = ring
        self._peers = peers
        self._provider = provider
        self._random = random
        self._kept = SingleUse(clock)

    def mask(self, caller: ModelCaller, body: BinaryIO) -> tuple[str, BinaryIO]:
        """`body` is a file with this holder's `x`; returns a session and a file with `d` and `e`.

        Raises InvalidPayload, ModelNotFound, SharePeerNotAllowed, NotFound (the triple was used), QueueFull,
        ComputeUnavailable, InferenceTimeout.
        """
        asked = load(MASK, _metadata(body))
        content = self._reading.content(caller, asked["share"])
        if not content.row.hidden or content.row.share_precision is None:
            raise InvalidPayload(fields={"share": ["is not a share"]})
        index = int(content.row.id.rpartition("-")[2])
        part = self._part(asked, index)
        share = self._blobs.path(content.sha256).open("rb")
        try:
            masked = self._ring.mask(share, asked["weight"], part, body)
            whose = (caller.key_id, caller.token)
            name = self._random(16).hex()
            session = _Session(part, share, asked["bias"], content.row.share_precision, index == 0, whose)
            self._kept.put({name: session})
        except BaseException:
            share.close()
            raise
        return name, masked

    def finish(self, caller: ModelCaller, name: str, body: BinaryIO) -> BinaryIO:
        """`body` is a file with `d` and `e` of all holders; returns a file with this holder's share `y`.

        Raises NotFound, InvalidPayload, ComputeUnavailable, InferenceTimeout.
        """
        whose = (caller.key_id, caller.token)
        session: _Session = self._kept.take(name, lambda one: one.caller == whose)
        with session.share, session.file as part:
            return self._ring.finish(session.share, session.bias, session.precision, session.first, part, body)

    def _part(self, asked: dict[str, Any], index: int) -> BinaryIO:
        address = _address(asked["provider"])
        if address not in self._peers:
            raise SharePeerNotAllowed("The crypto provider is not one of the operator's share_peers")
        try:
            with self._provider(address, self._peers[address]) as provider:
                part = provider.fetch(asked["triple"], index, asked["token"])
        except PeerError as error:
            if error.status == NotFound.status:
                raise NotFound("The provider has no such triple, or it was used") from None
            raise ComputeUnavailable("The crypto provider does not answer", retry_after=1) from None
        file = self._ring.file()
        self._offload(partial(file.write, part))
        return file


@dataclass(frozen=True)
class Secure:
    """Both roles."""

    ring: Ring
    triples: Triples
    linear: SecureLinear


def _address(text: str) -> str:
    try:
        return checked_address(text)
    except ValueError as error:
        raise InvalidPayload(fields={"provider": [str(error)]}) from None


def _metadata(body: BinaryIO) -> dict[str, str]:
    try:
        return TensorFile(DescriptorSource(body.fileno()), METADATA_MAX).metadata
    except NotTensors as error:
        raise InvalidPayload(fields={"_schema": [str(error)]}) from None
