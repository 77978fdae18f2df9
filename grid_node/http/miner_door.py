"""Who a request of a miner speaks for: a hotkey that signed it, or in a private grid the holder of an API key."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

from flask import Request

from grid_node.database import Transaction
from grid_node.errors import Forbidden, InvalidKey, MissingKey, Unauthorized
from grid_node.http.auth import address_of, target_of
from grid_node.identity.epistula import SignedRequest, body_digest
from grid_node.identity.service import Caller
from grid_node.predictions.ports import Miner
from grid_node.services import Services
from grid_node.web import key_of_environ

WORKER, ADMIN = "worker", "admin"
"""Scopes of API keys."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A miner that a request was proven to come from."""

    miner: Miner
    guard: Callable[[Transaction], None] | None
    """Uses the request up, in the transaction that acts on it; raises ReplayedRequest. None: a key is no single use."""


class MinerDoor:
    """Identifies the requests of miners, and of those who look after the games."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # --- miners -------------------------------------------------------------------------------------------------

    def claimed(self, request: Request) -> SignedRequest | Miner:
        """Before the body is read: who says to have sent it. A signature is checked by `proven`.

        Raises what Epistula.open raises; for an API key what MinerAuthentication.key_miner raises.
        """
        key = key_of_environ(request.environ)
        if key is None or is_signed(request):
            return self._services.epistula.open(cast(Mapping[str, str], request.headers))
        return self._services.predicting.authentication.key_miner(key, address_of(request))

    def proven(self, request: Request, claimed: SignedRequest | Miner, body: bytes = b"") -> Sender:
        """The sender of a request with this body. Whether it may predict is not asked. Raises BadSignature."""
        if isinstance(claimed, Miner):
            return Sender(claimed, None)
        epistula = self._services.epistula
        epistula.check(claimed, body_digest(request.method, target_of(request), body))
        miner = Miner.of_hotkey(claimed.public_key, claimed.hotkey)
        return Sender(miner, lambda tx: epistula.remember(tx, claimed))

    def admitted(self, miner: Miner) -> Miner:
        """The miner with its uid, if it may predict now. Raises NotRegistered, Blacklisted, RegistrationUnknown."""
        if miner.public_key is None:
            return miner
        return replace(miner, uid=self._services.predicting.registry.admit(miner.public_key))

    def owner(self, request: Request) -> Miner:
        """Who sent this request without a body, for the first time; registered or not."""
        sender = self.proven(request, self.claimed(request))
        self._use_up(sender)
        return sender.miner

    def _use_up(self, sender: Sender) -> None:
        if sender.guard is not None:
            self._services.store.write(sender.guard)

    # --- games --------------------------------------------------------------------------------------------------

    def reader(self, request: Request) -> Miner:
        """Who may read games: a miner that may predict, or the holder of a key with scope `admin`."""
        key = key_of_environ(request.environ)
        if key is None or is_signed(request):
            sender = self.proven(request, self.claimed(request))
            miner = self.admitted(sender.miner)  # a stranger writes nothing
            self._use_up(sender)
            return miner
        caller = self._services.keys.authenticate(key, address_of(request))
        enough = {ADMIN, WORKER} if self._services.settings.worker_api_keys else {ADMIN}
        if not caller.scopes & enough:
            raise Forbidden()
        return Miner.of_key(caller.key_id)

    def admin(self, request: Request) -> Caller:
        """The holder of a key with scope `admin`. Raises Unauthorized, Forbidden, TooManyBadKeys."""
        key = key_of_environ(request.environ)
        if key is None and is_signed(request):
            raise Forbidden("Games are kept by holders of an API key with the scope admin")
        try:
            return self._services.keys.authenticate(key, address_of(request), ADMIN)
        except (MissingKey, InvalidKey) as error:
            raise Unauthorized() from error


def is_signed(request: Request) -> bool:
    return any(f"Epistula-{name}" in request.headers for name in ("Version", "Signed-By", "Request-Signature"))
