"""What runners need of others, and the words between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from grid_node.database import Transaction


@dataclass(frozen=True, slots=True)
class RunnerCaller:
    """Who asks: `owner` is the id of the API key, `account` its name where that can stand in an address."""

    owner: str
    account: str


class Reply(NamedTuple):
    """What a worker answered."""

    status: int
    json: Any


class Runner(NamedTuple):
    """One way to a worker that this process has. `status` is the worker's own word, or OFFLINE."""

    instance: str
    status: str


class TunnelProvider(Protocol):
    """Ways into the machines of model owners.

    Creating is idempotent by id: a second call, also after a lost answer, finds what the first made. Raises
    TunnelProviderFailed.
    """

    @property
    def name(self) -> str: ...

    def create_tunnel(self, id: str) -> dict[str, Any]:
        """Cloudflare's envelope: `{success, errors, messages, result: {id, name, credentials_file: {AccountTag,
        TunnelID, TunnelName, TunnelSecret}, token, ...}}`."""

    def create_hostname(self, id: str, target_content: str) -> dict[str, Any]:
        """Let `<id>.<domain>` lead to `target_content`; `result.id` of the answer names the record, if there is one."""

    def delete(self, id: str) -> None:
        """Record, connections and tunnel are gone when this returns; what is not there is no error."""

    def runners(self, model: str) -> list[Runner]:
        """The ways to this model's workers that can be used from this process, now."""

    def call(
        self,
        model: str,
        method: str,
        path: str,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 15.0,
        runner: str | None = None,
    ) -> Reply:
        """One of the allowed calls, through that runner or any. Raises CallNotAllowed, RunnerOffline, RunnerTimeout,
        RunnerUnreachable, ReplyTooLarge."""


class Charge(Protocol):
    """The window of an API key."""

    def __call__(self, tx: Transaction, key_id: str, now: float) -> None:
        """Count one request of the key. Raises InvalidKey, Forbidden, RateLimited."""
