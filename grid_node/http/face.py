"""The HTTP face as a whole: what the node steers of it."""

from collections.abc import Sequence
from typing import Protocol

from grid_node.http.connections import Connections
from grid_node.http.game_polls import GamePolls
from grid_node.http.idle import IdleConnections
from grid_node.services import Services


class Recovering(Protocol):
    """Something that a restart interrupts."""

    def recover(self) -> None:
        """Go on with it."""


class HttpFace:
    """Everything of HTTP that lasts longer than one answer."""

    def __init__(
        self,
        services: Services,
        connections: Connections,
        idle: IdleConnections,
        uploads: Sequence[Recovering],
        polls: GamePolls,
    ) -> None:
        self._services = services
        self._connections = connections
        self._idle = idle
        self._uploads = uploads
        self._polls = polls

    def recover(self) -> None:
        """Finish what a restart interrupted, or a fault of ours."""
        for uploads in self._uploads:
            uploads.recover()

    def tick(self) -> None:
        """Called twice a second."""
        self._services.tasks.cancel_abandoned()

    def drop_invalid(self) -> None:
        """End every connection whose key is no longer in force."""
        held = self._connections.keys()
        if held:
            self._connections.drop(held - self._services.keys.in_force(held))

    def shut_down(self) -> None:
        """Tell every connection that this process ends; returns when they have heard it."""
        self._idle.shut_down()
        self._polls.shut_down()
        self._connections.shut_down()

    def connections(self) -> dict[str, int]:
        """Open connections by face."""
        return {**self._connections.count(), "poll": len(self._polls)}
