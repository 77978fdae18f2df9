"""HTTP with the node: JSON requests, downloads (RFC 9110 Range) and uploads (tus 1.0.0) that resume."""

from __future__ import annotations

import base64
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urljoin, urlsplit

import httpx

from grid_client.backoff import Answer, Backoff, retry
from grid_client.errors import ConnectionLost, DeadlineExceeded, GridError, HashMismatch

PIECE = 256 * 1024
TUS_CHUNK = 4 * 1024 * 1024
PLAIN = {"Accept-Encoding": "identity"}
"""Ranges and sha256 are of the stored bytes, not of a compressed form of them."""
TIMEOUT = httpx.Timeout(10.0, read=60.0, write=60.0)
"""Seconds without any progress; the whole is bounded by the caller's deadline."""


Progress = Callable[[int, int], object]
"""Called with the bytes done and the bytes in all, as often as there is news."""


class RequestSigner(Protocol):
    def __call__(self, method: str, target: str, body: bytes | None) -> Mapping[str, str]:
        """Headers that authenticate one request; `target` is the path with its query."""
        ...


class Http:
    """HTTP requests to one node, each authenticated, each refusal a GridError."""

    def __init__(
        self,
        url: str,
        signer: RequestSigner,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        client: httpx.Client | None = None,
    ) -> None:
        self.url = url.rstrip("/") + "/"
        self._signer = signer
        self._sleep = sleep
        self._clock = clock
        self._client = client or httpx.Client(timeout=TIMEOUT, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Raises GridError for statuses from 400, ConnectionLost when no whole answer came."""
        request = self._request(method, path, body=body, headers=headers, params=params)
        try:
            response = self._client.send(request)
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            raise GridError("bad_request", f"{method} {request.url.path}: {error}") from None
        except httpx.HTTPError as error:
            raise ConnectionLost(f"{method} {request.url.path}: {error!r}") from None
        return _checked(response)

    def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        response = self.request(method, path, **options)
        try:
            body = response.json()
        except ValueError:
            raise GridError("bad_answer", "the node's answer is no JSON", status=response.status_code) from None
        if not isinstance(body, dict):
            raise GridError("bad_answer", "the node's answer is no object", status=response.status_code)
        return body

    def retried(self, attempt: Callable[[], Answer], deadline: float) -> Answer:
        """Repeats `attempt` while its failures are retryable and the (monotonic) deadline allows it."""
        return retry(attempt, deadline, sleep=self._sleep, clock=self._clock)

    def download(
        self, path: str, target: Path, *, timeout: float = 600.0, progress: Progress = lambda done, total: None
    ) -> str:
        """Writes the bytes to `target` and returns their sha256, which the node announced as the ETag.

        What arrived is kept in a hidden file beside the target and continued after a break, in a later call
        too. The target appears whole or not at all.
        """
        deadline = self._clock() + timeout
        head = self.retried(lambda: self.request("HEAD", path, headers=PLAIN), deadline)
        digest = head.headers.get("ETag", "").strip('"')
        if len(digest) != 64:
            raise GridError("bad_answer", "the node announced no sha256 for this asset")
        length = head.headers.get("Content-Length", "")
        seen = functools.partial(_report, progress, int(length) if length.isdecimal() else 0)
        part = target.with_name(f".{target.name}.{digest[:16]}.part")
        self.retried(lambda: self._fetch(path, part, digest, deadline, seen), deadline)
        _verify(part, digest)
        os.replace(part, target)
        return digest

    def upload(
        self,
        upload_url: str,
        asset: bytes,
        metadata: Mapping[str, str],
        *,
        timeout: float,
        stop: Callable[[], bool] = lambda: False,
        chunk: int = TUS_CHUNK,
    ) -> str:
        """Uploads by tus and returns the upload id; after a break only the rest is sent."""
        deadline = self._clock() + timeout
        location = self.retried(lambda: self._create_upload(upload_url, asset, metadata), deadline)
        offset, backoff = 0, Backoff()
        while offset < len(asset):
            if stop():
                raise GridError("abandoned", "the upload is not wanted any more")
            try:
                offset = self._append(location, asset, offset, chunk)
                backoff.reset()
            except GridError as error:
                if not (error.retryable or error.status in (409, 460)):
                    raise
                self._pause(backoff.next(error.retry_after), deadline)
                offset = self.retried(lambda: self._upload_offset(location), deadline)
        return urlsplit(location).path.rstrip("/").rsplit("/", 1)[-1]

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> httpx.Request:
        address = self._address(path)
        if params:
            address = address.copy_merge_params(dict(params))
        signed = self._signer(method, address.raw_path.decode("ascii"), body)
        content = None if body is None else _pieces(body)
        length = {} if body is None else {"Content-Length": str(len(body))}
        return self._client.build_request(
            method, address, content=content, headers={**(headers or {}), **signed, **length}
        )

    def _address(self, path: str) -> httpx.URL:
        """On the node's own origin always: credentials go nowhere else, whatever address the node names."""
        base = httpx.URL(self.url)
        if "://" not in path:
            return base.join(path.lstrip("/"))
        named = httpx.URL(path)
        if named.host != base.host:
            raise GridError("bad_answer", f"the node pointed to another host: {named.host}")
        return base.copy_with(raw_path=named.raw_path)

    def _fetch(self, path: str, part: Path, digest: str, deadline: float, seen: Callable[[int], None]) -> None:
        have = part.stat().st_size if part.exists() else 0
        resumed = {"Range": f"bytes={have}-", "If-Range": f'"{digest}"'} if have else {}
        request = self._request("GET", path, headers=PLAIN | resumed)
        try:
            response = self._client.send(request, stream=True)
            try:
                self._receive(response, part, deadline, seen)
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise ConnectionLost(f"download broke: {error!r}") from None

    def _receive(self, response: httpx.Response, part: Path, deadline: float, seen: Callable[[int], None]) -> None:
        if response.status_code == 416:  # all of it is here already
            return
        if response.status_code >= 400:
            response.read()
        _checked(response)
        with part.open("ab" if response.status_code == 206 else "wb") as file:
            for piece in response.iter_raw():
                file.write(piece)
                seen(file.tell())
                if self._clock() >= deadline:
                    raise DeadlineExceeded("the download took too long")
            file.flush()
            os.fsync(file.fileno())

    def _create_upload(self, upload_url: str, asset: bytes, metadata: Mapping[str, str]) -> str:
        fields = (f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in metadata.items())
        headers = {
            "Tus-Resumable": "1.0.0",
            "Upload-Length": str(len(asset)),
            "Upload-Metadata": ",".join(fields),
        }
        response = self.request("POST", upload_url, body=b"", headers=headers)
        location = response.headers.get("Location")
        if not location:
            raise GridError("bad_answer", "the node made no upload", status=response.status_code)
        return urljoin(str(response.request.url), location)

    def _append(self, location: str, asset: bytes, offset: int, chunk: int) -> int:
        headers = {
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
        }
        response = self.request("PATCH", location, body=asset[offset : offset + chunk], headers=headers)
        return _offset(response, len(asset))

    def _upload_offset(self, location: str) -> int:
        response = self.request("HEAD", location, headers={"Tus-Resumable": "1.0.0"})
        return _offset(response, int(response.headers.get("Upload-Length", "0") or 0))

    def _pause(self, seconds: float, deadline: float) -> None:
        if self._clock() + seconds >= deadline:
            raise DeadlineExceeded("the upload took too long")
        self._sleep(seconds)


def _pieces(body: bytes) -> Iterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(body), PIECE):
        yield bytes(view[start : start + PIECE])


def _report(progress: Progress, total: int, done: int) -> None:
    progress(done, max(total, done))


def _checked(response: httpx.Response) -> httpx.Response:
    if response.status_code < 400:
        return response
    try:
        body = response.json()
    except ValueError:
        body = {}
    error = GridError.from_body(body, response.status_code)
    if error.retry_after is None and response.headers.get("Retry-After", "").isdigit():
        error.retry_after = float(response.headers["Retry-After"])
    raise error


def _offset(response: httpx.Response, length: int) -> int:
    text = response.headers.get("Upload-Offset", "")
    if not text.isdigit() or int(text) > length:
        raise GridError("bad_answer", "the node gave no valid Upload-Offset", status=response.status_code)
    return int(text)


def _verify(part: Path, digest: str) -> None:
    with part.open("rb") as file:
        hashed = sha256()
        while piece := file.read(PIECE):
            hashed.update(piece)
    if hashed.hexdigest() != digest:
        part.unlink()
        raise HashMismatch(f"the downloaded bytes are not those of {digest[:16]}…")
