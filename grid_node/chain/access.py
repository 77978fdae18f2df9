"""Who may ask the chain and who may write: Pylon's tokens and sessions, on every face.

Tokens are compared as bytes in constant time. An address that showed too many wrong ones is answered 429, unless what
it asks for was opened from there before: a neighbour's mistakes must not shut out who always came in.
"""

import hmac
import threading
from collections import OrderedDict

from grid_node.chain.failures import ADDRESSES, Failures, network
from grid_node.chain.pylon import Identity, PylonSettings
from grid_node.chain.sessions import Sessions
from grid_node.clock import Clock
from grid_node.errors import (
    ChainAuthLimited,
    ChainIdentityBound,
    ChainInvalid,
    ChainLoginNeeded,
    ChainNotFound,
    ChainNotMeasured,
    ChainTokenInvalid,
    ChainTokenMalformed,
)
from grid_node.settings import Settings

SHOWN = 64
"""Characters of an unknown name that are told back."""
_OPEN = ""
"""Stands for open access where names of identities stand; no identity has this name."""


class ChainAccess:
    """Decides by what the settings say. `secret` is the node's own; sessions hang on it.

    Headers come as the faces have them: text of which each character is one byte (WSGI), or None.
    """

    def __init__(self, settings: Settings, pylon: PylonSettings, clock: Clock, secret: bytes) -> None:
        self._identities = {identity.name: identity for identity in pylon.identities}
        self._open_token = pylon.open_access_token
        self._metrics_token = pylon.metrics_token
        self._tokenless = settings.chain_allow_tokenless_open_access
        self._sessions = Sessions(clock, secret, settings.chain_session_seconds)
        self._failures = Failures(settings.chain_auth_failures_per_minute, clock)
        self._opened: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    # --- HTTP ------------------------------------------------------------------------------------------------------

    def identity(
        self, name: str, netuid: int, authorization: str | None, cookie: str | None, address: str
    ) -> tuple[Identity, str | None]:
        """The identity, and the value that its session cookie is to be renewed to, if any.

        A header decides alone. Raises, in this order: ChainLoginNeeded, ChainTokenMalformed, ChainNotFound (no such
        identity), ChainTokenInvalid, ChainSessionEnded or ChainAuthLimited, ChainIdentityBound.
        """
        if authorization is None and cookie is None:
            raise ChainLoginNeeded()
        token = None if authorization is None else bearer(authorization)
        identity = self._known(name)
        renewed = None
        if token is not None:
            self._check(token, identity.token, identity.name, address)
        else:
            renewed = self._sessions.check(identity, cookie or "")
        if identity.netuid != netuid:
            raise ChainIdentityBound(f"Identity '{identity.name}' is bound to subnet {identity.netuid}, not {netuid}")
        return identity, renewed

    def open(self, authorization: str | None, address: str) -> None:
        """Open access. Raises ChainLoginNeeded, ChainTokenMalformed, ChainTokenInvalid, ChainAuthLimited."""
        if not self._open_token:
            return
        if authorization is None and not self._tokenless:
            raise ChainLoginNeeded()
        self.block_level(authorization, address)

    def block_level(self, authorization: str | None, address: str) -> None:
        """Blocks and extrinsics: a header may be absent, not wrong. Raises as `open` does."""
        if self._open_token and authorization is not None:
            self._check(bearer(authorization), self._open_token, _OPEN, address)

    def metrics(self, authorization: str | None) -> None:
        """Raises ChainNotMeasured, with the text that says why."""
        if not self._metrics_token:
            raise ChainNotMeasured()
        if authorization is None:
            raise ChainNotMeasured(ChainLoginNeeded.text)
        try:
            token = bearer(authorization)
        except ChainTokenMalformed as error:
            raise ChainNotMeasured(error.message) from None
        if not _equal(token, self._metrics_token):
            raise ChainNotMeasured(ChainTokenInvalid.text)

    def login(self, name: str, token: object, address: str) -> tuple[Identity, str]:
        """The identity and the value of its session cookie; `token` is the body's, None where there is none.

        Raises ChainNotFound, ChainInvalid, ChainTokenInvalid, ChainAuthLimited.
        """
        identity = self._known(name)
        if not isinstance(token, str):
            message = "Field required" if token is None else "Input should be a valid string"
            raise ChainInvalid(
                f"Validation failed for POST /api/v1/login/identity/{identity.name}",
                extra=[{"message": message, "key": "token"}],
            )
        self._check(_bytes(token), identity.token, identity.name, address)
        return identity, self._sessions.issue(identity)

    # --- sockets ---------------------------------------------------------------------------------------------------

    def by_token(self, name: object, token: object, address: str) -> Identity:
        """Raises ChainLoginNeeded, ChainNotFound, ChainTokenInvalid, ChainAuthLimited."""
        if not isinstance(token, str):
            raise ChainLoginNeeded()
        identity = self._known(name)
        self._check(_bytes(token), identity.token, identity.name, address)
        return identity

    def open_token(self, token: object, address: str) -> None:
        """Open access by the token itself, None where there is none. Raises as `open` does."""
        if not self._open_token or (token is None and self._tokenless):
            return
        if not isinstance(token, str):
            raise ChainLoginNeeded()
        self._check(_bytes(token), self._open_token, _OPEN, address)

    # --- both ------------------------------------------------------------------------------------------------------

    def _known(self, name: object) -> Identity:
        found = self._identities.get(name) if isinstance(name, str) else None
        if found is None:
            raise ChainNotFound(f"Identity '{str(name)[:SHOWN]}' not found")
        return found

    def _check(self, token: bytes, expected: str, what: str, address: str) -> None:
        """Raises ChainTokenInvalid, ChainAuthLimited."""
        wait = self._failures.wait(address)
        if wait is not None and (network(address), what) not in self._opened:
            raise ChainAuthLimited(retry_after=wait)
        if _equal(token, expected):
            self._note_opened(network(address), what)
        elif wait is not None:
            raise ChainAuthLimited(retry_after=wait)
        else:
            self._failures.note(address)
            raise ChainTokenInvalid()

    def _note_opened(self, sender: str, what: str) -> None:
        with self._lock:
            self._opened[sender, what] = None
            self._opened.move_to_end((sender, what))
            if len(self._opened) > ADDRESSES:
                self._opened.popitem(last=False)


def bearer(authorization: str) -> bytes:
    """The token of `Bearer <token>`; the scheme in any case. Raises ChainTokenMalformed."""
    scheme, _, token = authorization.strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise ChainTokenMalformed()
    try:
        return token.encode("latin-1")  # what WSGI made of the bytes that came
    except UnicodeEncodeError:
        return _bytes(token)


def _equal(token: bytes, expected: str) -> bool:
    return hmac.compare_digest(token, _bytes(expected))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
