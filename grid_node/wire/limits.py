"""Every limit of the wire in one place, with its unit."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What one process, one connection and one message may take. Sizes in bytes, times in seconds."""

    transport_bytes: int = 8 * MIB
    """One WebSocket message or polling body after a namespace is joined; above it the connection ends (1009). Well
    above `message_bytes`, so that who sends too much is told so and may send it elsewhere."""
    handshake_bytes: int = 64 * KIB
    """The same before a namespace is joined: a stranger may not make us buffer more than a key needs."""
    message_bytes: int = MIB
    """One Socket.IO event with all its attachments; above it the event is answered 413 and the connection lives."""
    attachments: int = 16
    """Binary parts of one Socket.IO event."""
    depth: int = 64
    """Nested arrays and objects in one JSON text."""
    in_flight: int = 64
    """Events of one socket that wait for their answer."""
    backlog_bytes: int = 8 * MIB
    """Bytes that wait for a reader that does not read; the next one cuts the connection."""
    backlog_items: int = 4096
    """Messages that wait for such a reader."""
    stall_seconds: float = 20.0
    """A reader that takes nothing for so long is cut."""
    join_seconds: float = 10.0
    """A transport that has joined no namespace by then is cut."""
    connections: int = 10_000
    """Engine.IO sessions of this process; the next one is answered 503."""
    pending: int = 1_000
    """Sessions that have not joined a namespace yet."""
    strikes: int = 100
    """Malformed messages that are answered or dropped before the connection is cut (1008)."""
