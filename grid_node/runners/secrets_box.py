"""Secrets that the node must be able to read again, encrypted at rest: Fernet, https://github.com/fernet/spec."""

import base64
import re

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from grid_node.settings import BadSetting

_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
_PURPOSE = b"grid-node secrets at rest"


class SealBroken(RuntimeError):
    """What is kept was encrypted with a key that this node does not have."""


class SecretsBox:
    """Encrypts with the first of `keys` (GRID_SECRETS_KEY: comma separated, newest first) and reads with each of them.

    Without keys it uses one that comes from the node's secret. That one also reads, after the others, so that a node
    that is given keys later still knows what it kept before. Raises BadSetting.
    """

    def __init__(self, keys: str, node_secret: bytes) -> None:
        named = [key.strip() for key in keys.split(",") if key.strip()]
        self._fernet = MultiFernet([*map(_fernet, named), _own(node_secret)])

    def __repr__(self) -> str:
        return "SecretsBox()"

    def seal(self, text: str) -> str:
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, text: str) -> str:
        """Raises SealBroken."""
        try:
            return self._fernet.decrypt(text.encode()).decode()
        except InvalidToken:
            raise SealBroken(
                "a stored secret was encrypted with another key: put that key back into GRID_SECRETS_KEY, or copy the"
                " file node.secret from the data folder that it was made in"
            ) from None


def _fernet(key: str) -> Fernet:
    if not _KEY.fullmatch(key):
        raise BadSetting(
            "GRID_SECRETS_KEY must hold Fernet keys, 32 bytes each in url-safe base64 (44 characters), comma separated"
        )
    return Fernet(key)


def _own(node_secret: bytes) -> Fernet:
    derived = HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive(node_secret)
    return Fernet(base64.urlsafe_b64encode(derived))
