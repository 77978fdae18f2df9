"""Sessions of identities: signed cookie values that the node keeps nothing of.

A value is `name.issued.fingerprint.signature`: the identity, whole seconds since 1970-01-01 UTC, a keyed hash of the
identity's token, and an HMAC-SHA256 of the three. It survives restarts and dies when the token changes.
"""

import hashlib
import hmac
import re

from grid_node.chain.pylon import Identity
from grid_node.clock import Clock
from grid_node.errors import ChainSessionEnded

COOKIE = "pylon_session"
VALUE_MAX = 1024
"""Characters that are looked at; names of identities are shorter by far."""

_KEY = b"grid-node chain session key"
_VALUE = re.compile(r"([A-Za-z][A-Za-z0-9_]*)\.([0-9]{1,12})\.([0-9a-f]{32})\.([0-9a-f]{64})", re.ASCII)


class Sessions:
    """Issues and checks them. `seconds` is the life of one; it is renewed on use after half of it."""

    def __init__(self, clock: Clock, secret: bytes, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._key = hashlib.blake2b(_KEY, key=hashlib.sha256(secret).digest(), digest_size=32).digest()

    def issue(self, identity: Identity) -> str:
        return self._signed(identity, int(self._clock.now()))

    def check(self, identity: Identity, value: str) -> str | None:
        """A new value when it is time for one. Raises ChainSessionEnded."""
        found = _VALUE.fullmatch(value) if len(value) <= VALUE_MAX else None
        if found is None:
            raise ChainSessionEnded()
        issued = int(found[2])
        if not hmac.compare_digest(value.encode(), self._signed(identity, issued).encode()):
            raise ChainSessionEnded()
        # A clock that was set back makes it younger than nothing: it is ours all the same, if not by a whole life.
        age = self._clock.now() - issued
        if abs(age) >= self._seconds:
            raise ChainSessionEnded()
        return self.issue(identity) if age > self._seconds / 2 else None

    def _signed(self, identity: Identity, issued: int) -> str:
        token = identity.token.encode("utf-8", "surrogatepass")
        fingerprint = hmac.digest(self._key, b"token\0" + token, "sha256")[:16].hex()
        told = f"{identity.name}.{issued}.{fingerprint}"
        return f"{told}.{hmac.digest(self._key, told.encode(), 'sha256').hex()}"
