"""Socket.IO packets (protocol 5) as text: read with limits, written without a detour."""

from __future__ import annotations

import re
from typing import Any

from socketio.packet import ACK, BINARY_ACK, BINARY_EVENT, CONNECT, CONNECT_ERROR, DISCONNECT, EVENT, Packet

from grid_node.wire import strict_json
from grid_node.wire.events import JsonText
from grid_node.wire.session import ProtocolViolation

_HEAD = re.compile(
    r"([0-6])"  # type
    r"(?:(\d{1,4})-)?"  # attachments, where the type has them
    r"(?:(/[^,?]{0,200})(?:\?[^,]{0,2000})?(?:,|$))?"  # namespace; its query is ignored
    r"(\d{1,18})?",  # ack id
    re.ASCII,
)


class WirePacket(Packet):
    """python-socketio's packet with our strict JSON; for what goes out with attachments or through a message queue."""

    json = strict_json

    @classmethod
    def data_is_binary(cls, data: Any) -> bool:
        if isinstance(data, dict):
            return any(map(cls.data_is_binary, data.values()))
        if isinstance(data, list | tuple):
            return any(map(cls.data_is_binary, data))
        return isinstance(data, bytes | bytearray)


class Head:
    """The part of a packet in front of its JSON."""

    __slots__ = ("ack_id", "attachments", "body", "kind", "namespace")

    def __init__(self, text: str) -> None:
        match = _HEAD.match(text)
        if match is None:
            raise ProtocolViolation("not a Socket.IO packet")
        kind, attachments, namespace, ack_id = match.groups()
        self.kind = int(kind)
        self.attachments = int(attachments) if attachments else 0
        self.namespace = namespace or "/"
        self.ack_id = int(ack_id) if ack_id else None
        self.body = text[match.end() :]


def ack_text(namespace: str, ack_id: int, answer: Any) -> str | None:
    """An acknowledgement as text; None where the answer holds bytes, which take attachments."""
    prefix = "3" if namespace == "/" else f"3{namespace},"
    if type(answer) is JsonText:
        return f"{prefix}{ack_id}[{answer}]"
    try:
        return f"{prefix}{ack_id}[{strict_json.dumps(answer)}]"
    except TypeError:
        return None


def fill_placeholders(value: Any, attachments: list[bytes]) -> Any:
    """Put the attachments where the JSON points to them; raises ProtocolViolation for a pointer to nothing."""
    if isinstance(value, list):
        return [fill_placeholders(item, attachments) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("_placeholder") is True:
        number = value.get("num")
        if type(number) is not int or not 0 <= number < len(attachments):
            raise ProtocolViolation("attachment out of range")
        return attachments[number]
    return {key: fill_placeholders(item, attachments) for key, item in value.items()}


__all__ = [
    "ACK",
    "BINARY_ACK",
    "BINARY_EVENT",
    "CONNECT",
    "CONNECT_ERROR",
    "DISCONNECT",
    "EVENT",
    "Head",
    "WirePacket",
    "ack_text",
    "fill_placeholders",
]
