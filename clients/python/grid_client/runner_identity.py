"""Who a runner's agent is: the model that it serves, what proves that, and the instance that it is."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from grid_client import __version__

log = logging.getLogger(__name__)

PROTOCOL = 1
MODEL_ID = re.compile(r"m-[a-z2-7]{20}")
CREDENTIAL_MAX = 64 * 1024
"""Bytes of a credential file; a whole one has less than a thousand."""
_INSTANCE = re.compile(r"[0-9a-f]{32}")
_UNCLEAN = re.compile(r"[^A-Za-z0-9.-]+")


@dataclass(frozen=True)
class RunnerIdentity:
    """Either the `token` of the credential that registration gave, or an API key of the model's owner."""

    model_id: str
    token: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not MODEL_ID.fullmatch(self.model_id):
            raise ValueError(f"{self.model_id!r} is no model id, such as m-abcdefghijklmnopqrst")
        if (self.token is None) == (self.key is None):
            raise ValueError("a runner needs either a token or an API key")

    @classmethod
    def of_credential(cls, file: Path) -> Self:
        """From `tunnel_credential.json`. Raises OSError, ValueError."""
        with file.open("rb") as opened:
            text = opened.read(CREDENTIAL_MAX + 1)
        try:
            found = json.loads(text) if len(text) <= CREDENTIAL_MAX else None
        except (ValueError, RecursionError):
            found = None
        name, token = (found.get("TunnelName"), found.get("token")) if isinstance(found, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(token, str) or not token:
            raise ValueError(f"{file} holds no credential with TunnelName and token")
        return cls(name, token=token)

    def auth(self, instance: str) -> dict[str, Any]:
        """What a connection begins with."""
        proof = {"key": self.key} if self.token is None else {"token": self.token}
        agent = f"grid-runner/{__version__}"
        return {"protocol": PROTOCOL, "model_id": self.model_id, "instance": instance, "agent": agent, **proof}


def instance_file(folder: Path, model_id: str, origin: str) -> Path:
    """One for each worker of a model: two agents of one instance would push each other out."""
    return folder / f"grid-runner-{model_id}-{_UNCLEAN.sub('-', origin)}.instance"


@contextmanager
def kept_instance(file: Path) -> Iterator[str]:
    """32 hex digits that stay the same over restarts, and are nobody else's inside the block; those of this run alone
    where nothing can be kept. Raises ValueError while another agent has the file."""
    instance = uuid.uuid4().hex
    with ExitStack() as held:
        try:
            opened = held.enter_context(_opened(file))
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            instance = _read(opened) or _written(opened, instance)
        except BlockingIOError:
            raise ValueError(f"another agent runs with {file}") from None
        except OSError as error:
            log.warning("the instance id is not kept: %s", error)
        yield instance


def _opened(file: Path) -> BinaryIO:
    """To read and write; to read alone where it may not be written. The lock is on the file itself, which therefore
    is never replaced by another."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    except OSError:
        return file.open("rb")


def _read(opened: BinaryIO) -> str | None:
    """None for a new file, and for one that was cut short."""
    text = opened.read(64).decode("ascii", "replace").strip()
    return text if _INSTANCE.fullmatch(text) else None


def _written(opened: BinaryIO, instance: str) -> str:
    opened.seek(0)
    opened.truncate()
    opened.write(instance.encode() + b"\n")
    opened.flush()
    return instance
