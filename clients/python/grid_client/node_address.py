"""The address of a node, and how far it is to be trusted on the way there."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from grid_client.errors import GridError


def check_url(url: str, allow_insecure: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise GridError("bad_url", f"{url!r} is no http:// or https:// address")
    if parts.scheme == "http" and not (allow_insecure or _is_loopback(parts.hostname)):
        raise GridError("insecure_url", f"{parts.hostname} is another machine: use https://, or allow_insecure")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def tls_context(url: str, verify: bool, ca_file: Path | str | None) -> ssl.SSLContext | None:
    """Of an https:// address. Raises GridError `bad_ca_file`."""
    if urlsplit(url).scheme != "https":
        return None
    if not verify:
        return httpx.create_ssl_context(verify=False)
    if ca_file is None:
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise GridError("bad_ca_file", f"{ca_file}: {error}") from None
