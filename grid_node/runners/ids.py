"""Ids of runners: what they look like, how they are made, and the token that names a prediction."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
MODEL_ID = re.compile(r"m-[a-z2-7]{20}")
"""Row key, tunnel name and DNS label at once; no UUID, for cloudflared takes none as a tunnel's name."""
MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
PREDICTION_ID = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,128}")
"""What a worker may call a prediction of its own: 1 to 128 printable characters."""
CALLABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What may stand in the path of a call to a worker."""

RandomBytes = Callable[[int], bytes]
_TOKEN = re.compile(r"(?P<id>[a-z2-7]{26})\.[A-Za-z0-9_-]{43}")


def random_text(length: int, random: RandomBytes = secrets.token_bytes) -> str:
    """`length` characters of 5 random bits each."""
    return "".join(ALPHABET[byte & 31] for byte in random(length))


def model_id(random: RandomBytes = secrets.token_bytes) -> str:
    return f"m-{random_text(20, random)}"


def prediction_id(random: RandomBytes = secrets.token_bytes) -> str:
    return random_text(26, random)


def file_key(extension: str, random: RandomBytes = secrets.token_bytes) -> str:
    """`extension` is clean and starts with a dot, or is empty."""
    return random_text(32, random) + extension


def webhook_token(secret: bytes, prediction: str) -> str:
    """`<id>.<HMAC-SHA256 of the id, base64url without padding>`: names its prediction, and survives a restart."""
    mac = hmac.new(secret, prediction.encode(), hashlib.sha256).digest()
    return f"{prediction}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def prediction_of_token(secret: bytes, token: str) -> str | None:
    """The prediction that a token is good for; None for every other text."""
    match = _TOKEN.fullmatch(token)
    if match is None or not hmac.compare_digest(webhook_token(secret, match["id"]), token):
        return None
    return match["id"]
