"""Posting to addresses that strangers name: to the open internet alone, once, within a deadline, with a short answer.

The name is resolved here, every address that it has is judged, and the connection goes to exactly one of those that
were judged: a name that answers differently a moment later changes nothing. There are no redirects, no proxies, no
cookies, no compression, and no wait beyond the deadline, however slowly the other side reads or writes.
"""

import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import httpcore
import httpx

from grid_node.errors import WebhookNotAllowed

URL_MAX = 2048
"""Characters."""
ANSWER_MAX = 1024
"""Bytes of an answer that are read."""
NO_URL = "Not a valid URL."
CHECK_S = 2.0
"""Seconds that a name may take to be resolved when a URL is accepted; a slower one is judged when it is used."""
LOOKUPS_MAX = 32
"""Names that are looked up at a time: a lookup cannot be broken off, and outlives the wait for it."""

Resolve = Callable[[str, int, float], Sequence[str]]
"""Addresses of a host at a port, within so many seconds; OSError if there are none."""

# What the registries of special addresses (IANA, RFC 6890) keep back from the open internet, and multicast.
_NOT_PUBLIC_V4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""All that is given out. Loopback, local, multicast, IPv4-mapped and NAT64 (64:ff9b::/96) addresses lie outside."""
_NOT_PUBLIC_V6 = [
    ipaddress.IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
]
"""Protocols (Teredo too), documentation, 6to4 and the like: some carry an IPv4 address that would go unjudged."""

_lookups = threading.BoundedSemaphore(LOOKUPS_MAX)


class Unreachable(Exception):
    """No answer could be had; the text says why and names no address."""


class Answer(NamedTuple):
    """`body` is its first KiB, as it was sent."""

    status: int
    body: bytes


def is_public(address: str) -> bool:
    """Whether this IP address lies in the open internet."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _NOT_PUBLIC_V4)
    return parsed in _GLOBAL_V6 and not any(parsed in network for network in _NOT_PUBLIC_V6)


def looked_up(host: str, port: int, seconds: float) -> list[str]:
    """`Resolve` by the machine's resolver, in a thread of its own, for it has no time limit."""
    lookups = _lookups
    if not lookups.acquire(timeout=max(0.0, seconds)):
        raise OSError("too many names are being looked up")
    answer: queue.Queue[Any] = queue.Queue()
    until = time.monotonic() + seconds

    def look() -> None:
        try:
            answer.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError, ValueError) as error:
            answer.put(error)
        finally:
            lookups.release()

    threading.Thread(target=look, name="grid-lookup", daemon=True).start()
    try:
        found = answer.get(timeout=max(0.0, until - time.monotonic()))
    except queue.Empty:
        raise OSError("the name was not resolved in time") from None
    if isinstance(found, Exception):
        raise OSError("the name could not be resolved") from found
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check_target(url: object, allow_private: bool, resolve: Resolve = looked_up) -> str:
    """The URL, if webhooks may go there as far as can be told now. A name that cannot be resolved now may be able to be
    later. Raises WebhookNotAllowed."""
    target = _parsed(url, allow_private)
    if not allow_private:
        _judge(_addresses_now(target, resolve))
    return str(url)


def _addresses_now(target: httpx.URL, resolve: Resolve) -> Sequence[str]:
    """Empty for a name that cannot be resolved. Some resolvers do not know that `127.1` and `0x7f000001` are addresses;
    the one that is asked before the connection does."""
    host = _host(target)
    try:
        return [socket.inet_ntoa(socket.inet_aton(host))]
    except OSError:
        pass
    try:
        return resolve(host, _port(target), CHECK_S)
    except OSError:
        return []


def post(
    url: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    timeout_s: float,
    allow_private: bool,
    resolve: Resolve = looked_up,
    trust: ssl.SSLContext | None = None,
) -> Answer:
    """Send once. Everything together takes `timeout_s` seconds at the most. Raises WebhookNotAllowed, Unreachable."""
    target = _parsed(url, allow_private)
    deadline = _Deadline(timeout_s)
    secure = (trust or _trust()) if target.scheme == "https" else None
    sent = [(b"Host", target.netloc), (b"Content-Length", b"%d" % len(body)), (b"Connection", b"close")]
    sent += [(name.encode(), value.encode()) for name, value in headers]
    origin = httpcore.Origin(target.scheme.encode(), target.raw_host, _port(target))
    place = httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target.raw_path)
    backend = _Backend(deadline, allow_private, resolve)
    try:
        with (
            httpcore.HTTPConnection(origin, ssl_context=secure, network_backend=backend) as connection,
            connection.stream("POST", place, headers=sent, content=body) as answer,
        ):
            return Answer(answer.status, _beginning(answer.iter_stream()))
    except _FAILURES as error:
        raise Unreachable(_why(error)) from error


_FAILURES = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError, UnicodeError)


def _why(error: BaseException) -> str:
    if isinstance(error, httpcore.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpcore.ProtocolError):
        return "the answer is no HTTP"
    return str(error)[:200] or "the connection failed"


def _beginning(pieces: Iterable[bytes]) -> bytes:
    """The status is known by now: whatever becomes of the rest changes nothing."""
    read = b""
    try:
        for piece in pieces:
            read += piece
            if len(read) >= ANSWER_MAX:
                break
    except _FAILURES:
        pass
    return read[:ANSWER_MAX]


def _parsed(url: object, allow_private: bool) -> httpx.URL:
    """Raises WebhookNotAllowed."""
    if isinstance(url, str) and len(url) > URL_MAX:
        raise _refusal(f"Must be at most {URL_MAX} characters.")
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        raise _refusal(NO_URL)
    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise _refusal(NO_URL) from None
    if target.scheme not in (("https", "http") if allow_private else ("https",)):
        raise _refusal("Must be http or https." if allow_private else "Must be https.")
    port_is_good = target.port is None or 0 < target.port < 65536
    if not target.raw_host or target.userinfo or not port_is_good:
        raise _refusal(NO_URL)
    return target


def _refusal(why: str) -> WebhookNotAllowed:
    return WebhookNotAllowed(fields={"webhook": [why]})


def _host(target: httpx.URL) -> str:
    return target.raw_host.decode("ascii")


def _port(target: httpx.URL) -> int:
    return target.port or (443 if target.scheme == "https" else 80)


def _judge(addresses: Iterable[str]) -> None:
    """Raises WebhookNotAllowed if one of them is not public: a name has no business there in part either."""
    if not all(is_public(address) for address in addresses):
        raise _refusal("Must not be a private address.")


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    return httpx.create_ssl_context()


class _Deadline:
    """The end of all waits together."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds. Raises ReadTimeout when there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("out of time")
        return left


class _Backend(httpcore.NetworkBackend):
    """Connects to addresses that were judged."""

    def __init__(self, deadline: _Deadline, allow_private: bool, resolve: Resolve) -> None:
        self._deadline = deadline
        self._allow_private = allow_private
        self._resolve = resolve

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> "_Stream":
        addresses = self._resolve(host, port, self._deadline.left())
        if not self._allow_private:
            _judge(addresses)
        failure = OSError("the name has no address")
        for number, address in enumerate(addresses):
            share = self._deadline.left() / (len(addresses) - number)
            try:
                return _Stream(socket.create_connection((address, port), share), self._deadline)
            except OSError as error:
                failure = error
        raise httpcore.ConnectError(failure.strerror or "the connection failed")


class _Stream(httpcore.NetworkStream):
    """A connection of which no wait outlasts the deadline."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._sock.settimeout(self._deadline.left())
        try:
            return self._sock.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout from error
        except OSError as error:
            raise httpcore.ReadError(error.strerror or "the connection was lost") from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        rest = memoryview(buffer)
        while rest:
            self._sock.settimeout(self._deadline.left())
            try:
                rest = rest[self._sock.send(rest) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout from error
            except OSError as error:
                raise httpcore.WriteError(error.strerror or "the connection was lost") from error

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "_Stream":
        self._sock.settimeout(self._deadline.left())
        try:
            secure = ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)
        except TimeoutError as error:
            self.close()
            raise httpcore.ConnectTimeout from error
        except (OSError, ValueError) as error:
            self.close()
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or "no TLS"
            raise httpcore.ConnectError(f"TLS failed: {reason}") from error
        return _Stream(secure, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return None
