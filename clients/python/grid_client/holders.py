"""One node that holds shares: put a share there, fetch it, take it back. No torch here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from grid_client.errors import GridError, HashMismatch
from grid_client.model_upload import ModelUpload
from grid_client.shares import TOKEN_HEADER
from grid_client.transfer import Http

CHUNK = 1024 * 1024
"""Bytes of a share that are in memory while it is sent; up to sixteen are sent at once."""
ADDRESS_MAX = 2048


@dataclass(frozen=True)
class Part:
    """A share on its way to its holder; never more than a piece of it is in memory."""

    share_id: str
    """The id of the model at the holder."""
    sha256: str
    size: int
    read: Callable[[int, int], bytes]
    """So many bytes from an offset on: `read(offset, length)`."""
    token_sha256: str | None = None
    """Of the token that shall open the share for readers without the key; None: only the key does."""


def checked_address(address: str) -> str:
    """The address of a node in one spelling, without a slash at its end. Raises ValueError."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("the address of a node is http(s)://host[:port], nothing more")
    if len(address) > ADDRESS_MAX or not address.isascii() or not address.isprintable() or " " in address:
        raise ValueError("the address of a node has characters that it cannot have, or too many")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    standard = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in (None, standard) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


class Holder:
    """A holder node, seen with a key (which placing and removing need), a share's token, or neither.

    Every refusal is a GridError.
    """

    def __init__(
        self,
        address: str,
        api_key: str = "",
        token: str | None = None,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        if token is not None:
            self._headers[TOKEN_HEADER] = token
        self._sleep = sleep
        self._clock = clock
        self._http = Http(checked_address(address), self._sign, sleep=sleep, clock=clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def place(self, part: Part, timeout: float, stop: Callable[[], bool] = lambda: False) -> None:
        """The holder keeps the share when this returns. To place the same share again is no error.

        Raises GridError, with code `abandoned` soon after `stop` says so.
        """
        fields = {"model_id": part.share_id, "format": "share", "sha256": part.sha256}
        if part.token_sha256 is not None:
            fields["share_token_sha256"] = part.token_sha256
        upload = ModelUpload(
            self._http,
            part,
            fields,
            deadline=self._clock() + timeout,
            progress=partial(_go_on_unless, stop),
            resume=None,
            sleep=self._sleep,
            clock=self._clock,
            chunk=CHUNK,
        )
        try:
            upload.send()
        except GridError as error:
            if error.code != "model_exists" or self.digest(part.share_id) != part.sha256:
                raise

    def remove(self, share_id: str) -> bool:
        """The holder does not keep the share when this returns. False: nor did it before."""
        try:
            self._http.json(
                "POST",
                "delete_model",
                body=f'{{"model_id": "{share_id}"}}'.encode(),
                headers={"Content-Type": "application/json"},
            )
        except GridError as error:
            if error.code != "model_not_found":
                raise
            return False
        return True

    def fetch(self, share_id: str, target: Path, sha256: str | None = None, timeout: float = 600.0) -> None:
        """Write the share to a file. Raises HashMismatch when it is not the one that was placed."""
        found = self._http.download(_content(share_id), target, timeout=timeout)
        if sha256 not in (None, found):
            target.unlink()
            raise HashMismatch(f"{share_id} is not what was placed")

    def digest(self, share_id: str) -> str:
        """sha256 of the share that the holder has."""
        answer = self._http.request("HEAD", _content(share_id), headers={"Accept-Encoding": "identity"})
        return answer.headers.get("ETag", "").strip('"')

    def _sign(self, method: str, target: str, body: bytes | None) -> Mapping[str, str]:
        return self._headers


def _content(share_id: str) -> str:
    return f"models/{share_id}/content"


def _go_on_unless(stop: Callable[[], bool], _done: int, _size: int) -> None:
    if stop():
        raise GridError("abandoned", "the share is not wanted any more")
