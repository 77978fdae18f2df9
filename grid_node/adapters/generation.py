"""The ports of generation, filled from identity and uploads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from grid_node.blobs.store import Blob
from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import BadSignature, InvalidPayload, NotAuthenticated
from grid_node.fields import load
from grid_node.generation.leases import Kind
from grid_node.generation.schemas import WorkerNameSchema
from grid_node.generation.work import WorkerIdentity
from grid_node.identity.challenge import Authenticator, Challenge
from grid_node.identity.hotkeys import check_result, encode_hotkey
from grid_node.identity.limits import Limiter, Window
from grid_node.identity.node_key import NodeKey
from grid_node.identity.service import Caller, KeyService
from grid_node.identity.standing import Metagraph, admit
from grid_node.settings import Settings
from grid_node.uploads.service import UploadService

OFFER = WorkerNameSchema()
Reply = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class KeyGate:
    """Generation's Gate: API keys with scope `client` and their window."""

    keys: KeyService
    limiter: Limiter

    def admit(self, tx: Transaction, key_id: str, now: float) -> Caller:
        caller = self.keys.require(tx, key_id, "client", now, hold=True)
        self.keys.touch(tx, caller, now)
        return caller

    def window(self, tx: Transaction, caller: Caller, now: float) -> Window:
        return self.limiter.window(tx, caller, now)

    def charge(self, tx: Transaction, caller: Caller, now: float) -> Window:
        return self.limiter.charge(tx, caller, now)


@dataclass(frozen=True)
class WorkerRegistry:
    """Generation's Registry: hotkeys by their standing, private workers by their scores."""

    metagraph: Metagraph

    def strong(self, worker: WorkerIdentity) -> bool | None:
        if worker.public_key is None:
            return None
        return admit(self.metagraph, worker.public_key).strong


@dataclass(frozen=True)
class ResultSignatures:
    """Generation's Signatures: workers of a private grid sign nothing."""

    node_hotkey: str

    def valid(self, worker: WorkerIdentity, sha256: str, task_id: str, signature: str | None) -> bool:
        if worker.public_key is None:
            return True
        try:
            check_result(worker.public_key, signature, sha256, task_id, self.node_hotkey)
        except BadSignature:
            return False
        return True


@dataclass(frozen=True)
class StoredUploads:
    """Generation's UploadedResults."""

    store: Store
    uploads: UploadService

    def take(self, owner: str, upload_id: str) -> Blob:
        return self.store.write(lambda tx: self.uploads.take(tx, owner, upload_id))


class WorkerAuthentication:
    """Who a worker is: a hotkey that answers a challenge, or in a private grid the holder of an API key."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        keys: KeyService,
        authenticator: Authenticator,
        node_key: NodeKey,
        kinds: Mapping[str, Kind],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._keys = keys
        self._authenticator = authenticator
        self._node_key = node_key
        self._kinds = kinds

    def challenge(self) -> Challenge:
        return self._authenticator.challenge()

    def identify(self, challenge: Challenge, payload: Any, address: str) -> tuple[WorkerIdentity, Reply]:
        """The worker, and the function that makes the answer telling it so from further members.

        Raises what the check of a challenge or of a key raises.
        """
        if isinstance(payload, Mapping) and "api_key" in payload:
            return self._by_key(payload, address)
        peer = self._authenticator.check(challenge, payload)
        worker = self.hotkey_worker(peer.public_key, peer.introduction)
        return worker, partial(self._authenticator.answer, peer, self._clock.new_id(), worker=worker.identity)

    def _by_key(self, payload: Mapping[str, Any], address: str) -> tuple[WorkerIdentity, Reply]:
        offer = load(OFFER, {name: value for name, value in payload.items() if name != "api_key"})
        worker = self.key_worker(payload["api_key"], offer["name"], address, offer)
        return worker, partial(self._welcome, worker)

    def _welcome(self, worker: WorkerIdentity, **members: Any) -> dict[str, Any]:
        return {
            **self._node_key.base_fields("authenticated", self._clock),
            "success": True,
            "session_id": self._clock.new_id(),
            "worker": worker.identity,
            **members,
        }

    def key_worker(self, key: Any, name: str | None, address: str, offer: Mapping[str, Any]) -> WorkerIdentity:
        """A worker of a private grid; raises what KeyService.authenticate raises."""
        if not self._settings.worker_api_keys:
            raise NotAuthenticated("This grid identifies workers by hotkey")
        caller = self._keys.authenticate(key, address, "worker")
        if not name:
            raise InvalidPayload(fields={"name": ["is required"]})
        return self._worker(f"key:{caller.key_id}/{name}", None, caller.key_id, offer)

    def hotkey_worker(self, public_key: bytes, offer: Mapping[str, Any]) -> WorkerIdentity:
        return self._worker(encode_hotkey(public_key), public_key, None, offer)

    def _worker(
        self, identity: str, public_key: bytes | None, key_id: str | None, offer: Mapping[str, Any]
    ) -> WorkerIdentity:
        kinds = tuple(offer.get("kinds") or ("text_to_3d",))
        unknown = set(kinds) - self._kinds.keys()
        if unknown:
            raise InvalidPayload(fields={"kinds": [f"unknown: {', '.join(sorted(unknown))}"]})
        formats = tuple(offer.get("formats") or {form for kind in kinds for form in self._kinds[kind].formats})
        return WorkerIdentity(identity, public_key, key_id, kinds, formats, offer.get("max_parallel") or 1)
