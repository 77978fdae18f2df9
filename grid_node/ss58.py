"""SS58 text of 32-byte public keys, with prefix 42 as on Bittensor."""

from functools import lru_cache

from bittensor_wallet import Keypair

LENGTH_MAX = 64
"""No SS58 text of 32 bytes is longer."""


@lru_cache(maxsize=8192)
def encode(public_key: bytes) -> str:
    """SS58 with prefix 42 of 32 bytes."""
    return str(keypair(public_key).ss58_address)


@lru_cache(maxsize=8192)
def decode(text: str) -> bytes:
    """The 32 bytes behind SS58 text with prefix 42 and no other. Raises ValueError."""
    if len(text) > LENGTH_MAX:
        raise ValueError("too long for SS58")
    public_key: bytes | None = Keypair(ss58_address=text).public_key
    if public_key is None or encode(public_key) != text:
        raise ValueError("not SS58 with prefix 42")
    return public_key


@lru_cache(maxsize=8192)
def keypair(public_key: bytes) -> Keypair:
    """Verifies, and cannot sign."""
    return Keypair(public_key=public_key.hex())
