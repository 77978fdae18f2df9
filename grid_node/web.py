"""What a request says of its sender, for every face that has a WSGI environ."""

from collections.abc import Mapping
from typing import Any


def key_of_environ(environ: Mapping[str, Any]) -> str | None:
    """The API key of `Authorization: Bearer <key>` or `X-API-Key: <key>`; None if neither is there."""
    scheme, _, credentials = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme.lower() == "bearer" and credentials:
        return credentials.strip()
    return environ.get("HTTP_X_API_KEY")
