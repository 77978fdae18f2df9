"""The ports of predictions, filled from identity."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from grid_node.clock import Clock
from grid_node.errors import ChainUnavailable, NotAuthenticated, RegistrationUnknown
from grid_node.identity.challenge import Authenticator, Challenge
from grid_node.identity.hotkeys import check_message, decode_hotkey
from grid_node.identity.node_key import NodeKey
from grid_node.identity.schemas import KeyAuthenticate, load_message
from grid_node.identity.service import KeyService
from grid_node.identity.standing import Metagraph, admit
from grid_node.predictions.ports import Miner
from grid_node.settings import Settings

KEY_AUTHENTICATE = KeyAuthenticate()
Reply = Callable[..., dict[str, Any]]


class HotkeyRegistry:
    """Predictions' Registry: hotkeys by their standing."""

    def __init__(self, metagraph: Metagraph) -> None:
        self._metagraph = metagraph

    def admit(self, public_key: bytes) -> int | None:
        try:
            return admit(self._metagraph, public_key).uid
        except ChainUnavailable as error:
            raise RegistrationUnknown(retry_after=error.retry_after or 1) from error


class HotkeySignatures:
    """Predictions' Signatures."""

    def decode(self, hotkey: object) -> bytes:
        return decode_hotkey(hotkey)

    def check(self, public_key: bytes, message: Mapping[str, Any]) -> None:
        check_message(public_key, message)


class NodeSigner:
    """Predictions' Signer."""

    def __init__(self, node_key: NodeKey, clock: Clock) -> None:
        self._node_key = node_key
        self._clock = clock
        self.hotkey = node_key.hotkey

    def base_fields(self, message_type: str) -> dict[str, Any]:
        return self._node_key.base_fields(message_type, self._clock)

    def signed(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return self._node_key.sign_message(message)


class MinerAuthentication:
    """Who a miner is: a hotkey that answers a challenge, or in a private grid the holder of an API key."""

    def __init__(
        self, settings: Settings, clock: Clock, keys: KeyService, authenticator: Authenticator, signer: NodeSigner
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._keys = keys
        self._authenticator = authenticator
        self._signer = signer

    def challenge(self) -> Challenge:
        return self._authenticator.challenge()

    def identify(self, challenge: Challenge, payload: Any, address: str) -> tuple[Miner, dict[str, Any], Reply]:
        """The miner, what it said of itself (position, compression, client), and the function that makes the signed
        `authenticated` message from further members.

        Raises what the check of a challenge or of a key raises, and RegistrationUnknown.
        """
        if isinstance(payload, Mapping) and "api_key" in payload:
            return self._by_key(payload, address)
        try:
            peer = self._authenticator.check(challenge, payload)
        except ChainUnavailable as error:
            raise RegistrationUnknown(retry_after=error.retry_after or 1) from error
        miner = Miner.of_hotkey(peer.public_key, peer.hotkey, peer.standing.uid)
        return miner, peer.introduction, partial(self._authenticator.answer, peer, self._clock.new_id())

    def _by_key(self, payload: Mapping[str, Any], address: str) -> tuple[Miner, dict[str, Any], Reply]:
        introduction = load_message(KEY_AUTHENTICATE, payload)
        miner = self.key_miner(introduction["api_key"], address)
        return miner, introduction, partial(self._welcome, miner)

    def _welcome(self, miner: Miner, **members: Any) -> dict[str, Any]:
        message = self._signer.base_fields("authenticated")
        message |= {"receiver_hotkey": miner.address, "client_nonce": None, "success": True}
        return self._signer.signed({**message, "session_id": self._clock.new_id(), "uid": None, **members})

    def key_miner(self, key: object, address: str) -> Miner:
        """A miner of a private grid; raises what KeyService.authenticate raises."""
        if not self._settings.worker_api_keys:
            raise NotAuthenticated("This grid identifies miners by hotkey")
        caller = self._keys.authenticate(key, address, "worker")
        return Miner.of_key(caller.key_id)
