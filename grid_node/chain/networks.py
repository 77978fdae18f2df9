"""Names of Bittensor's networks, and their URLs."""

from urllib.parse import urlsplit

NETWORKS = {
    "finney": "wss://entrypoint-finney.opentensor.ai:443",
    "archive": "wss://archive.chain.opentensor.ai:443",
    "test": "wss://test.finney.opentensor.ai:443",
    "local": "ws://127.0.0.1:9944",
}
"""Public nodes of Bittensor by their usual names; `local` is a real node on this machine."""


def network_url(name: str) -> str | None:
    """The URL behind a network's name, or behind itself; None: it is neither."""
    if name in NETWORKS:
        return NETWORKS[name]
    try:
        parts = urlsplit(name)
        _ = parts.port
    except ValueError:
        return None
    plain = name.isascii() and name.isprintable() and " " not in name
    return name if plain and parts.scheme in {"ws", "wss"} and parts.hostname else None


def bare_url(url: str) -> str:
    """The URL without user, path and query: providers put their keys there, and answers and metrics name URLs."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
