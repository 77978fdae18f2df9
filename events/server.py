"""The Socket.IO face as a whole: its server, its namespaces, and what ends connections from outside."""

import logging
from typing import Any, Protocol

from flask import Flask
from flask_socketio import SocketIO

from events.chain import ChainEvents
from events.connection import ClientSessions, error_to_ack
from events.datasets import DatasetEvents
from events.generation import GenerationEvents
from events.models import ModelEvents
from events.paths import PathEvents
from events.pc import PC, PcEvents
from events.predictions import PredictionEvents
from events.publisher import (
    BLACKLISTED,
    CHAIN,
    CLIENTS,
    DEREGISTERED,
    KEY_REMOVED,
    MINERS,
    RUNNERS,
    RUNS,
    SHUTDOWN,
    WORKERS,
    Publisher,
)
from events.runners import RunnerEvents
from events.v1 import V1Events
from events.workers import UPLOAD_URL, WorkerEvents
from grid_node.errors import Blacklisted, GridError, NotRegistered, PayloadTooLarge
from grid_node.identity.standing import admit
from grid_node.services import Services
from grid_node.settings import MIB, Settings
from grid_node.wire.events import Events
from grid_node.wire.limits import WireLimits
from grid_node.wire.server import attach, build_server

log = logging.getLogger(__name__)

MODEL_UPLOAD_URL = "/uploads"
SPARE = 7 * MIB
"""Bytes that a transport takes above its largest event: who sends too much is told so, and is not cut."""


class Keyed(Protocol):
    """Sockets that came in by API key."""

    def keys(self) -> set[str]: ...

    def of_key(self, key_id: str) -> list[str]: ...

    def sids(self) -> list[str]: ...


class SocketFace:
    """Everything that speaks Socket.IO in this process."""

    def __init__(self, app: Flask, services: Services) -> None:
        settings = services.settings
        self._services = services
        self.server = build_server(
            async_mode=settings.async_mode,
            limits=_limits(settings),
            error_body=self._error_body,
            observe=self._observe,
            cors_allowed_origins=_origins(settings.cors_origins),
        )
        self.server.elsewhere[WORKERS] = {"upload_url": UPLOAD_URL}
        self.server.elsewhere[CLIENTS] = {"upload_url": MODEL_UPLOAD_URL}
        self.server.message_limits[CLIENTS] = settings.models_message_max
        self.publisher = Publisher(self.server)
        self.clients = ClientSessions(services)
        self.workers = WorkerEvents(services, self.server, self.publisher)
        self.server.message_limits[MINERS] = settings.prediction_max_batch_bytes
        self.server.too_large[MINERS] = PayloadTooLarge
        self.server.transport_limits[MINERS] = self.server.limits.handshake_bytes
        self.predictions = PredictionEvents(services, self.server, self.publisher)
        events = Events(self.server, CLIENTS)
        events.on_connect(self.clients.connect)
        events.on_disconnect(self.clients.disconnect)
        GenerationEvents(services, self.clients, self.publisher).register(events)
        paths = PathEvents(events)
        ModelEvents(services, self.clients).register(paths)
        DatasetEvents(services, self.clients).register(paths)
        self.workers.register(Events(self.server, WORKERS))
        self.predictions.register(Events(self.server, MINERS))
        self.runners = RunnerEvents(services, self.server, self.publisher)
        self.runners.register(Events(self.server, RUNNERS))
        self.owners = PcEvents(services)
        self.owners.register(Events(self.server, PC))
        self.runs = V1Events(services, self.server, self.publisher)
        self.runs.register(Events(self.server, RUNS))
        self.chain = ChainEvents(services, self.server, self.publisher)
        self.chain.register(Events(self.server, CHAIN))
        self._keyed: tuple[tuple[str, Keyed], ...] = (
            (CLIENTS, self.clients),
            (WORKERS, self.workers),
            (RUNNERS, self.runners),
            (PC, self.owners.sessions),
            (RUNS, self.runs.sessions),
        )
        self.extension = SocketIO(app, async_mode=settings.async_mode)
        attach(self.extension, self.server)

    def drop_invalid(self) -> None:
        """Cut every socket whose key is no longer in force, and every worker that may no longer work."""
        held = self.predictions.watch.keys().union(*(sockets.keys() for _, sockets in self._keyed))
        gone = held - self._services.keys.in_force(held) if held else set()
        for key_id in gone:
            for namespace, sockets in self._keyed:
                for sid in sockets.of_key(key_id):
                    self.publisher.closing(sid, namespace, KEY_REMOVED)
            self.predictions.watch.drop_key(key_id, KEY_REMOVED)
        for sid, worker in self.workers.hotkeys().items():
            self._recheck(sid, worker)

    def recheck(self) -> None:
        """Cut every miner that may no longer predict."""
        self.predictions.recheck()

    def _recheck(self, sid: str, worker: Any) -> None:
        try:
            admit(self._services.metagraph, worker.public_key)
        except NotRegistered:
            self.publisher.closing(sid, WORKERS, DEREGISTERED)
        except Blacklisted:
            self.publisher.closing(sid, WORKERS, BLACKLISTED)
        except GridError:
            return  # not known now: whoever is in stays in
        else:
            return
        self._services.leases.revoke(worker.identity)

    def shut_down(self) -> None:
        """Tell every socket that this process ends, then let them go."""
        for namespace, sockets in self._keyed:
            for sid in sockets.sids():
                self.publisher.closing(sid, namespace, SHUTDOWN)
        self.predictions.shut_down()
        self.server.eio.close_all()

    def connections(self) -> dict[str, int]:
        """Open sockets by face."""
        miners = self.predictions.counts()["connections"]
        counted = {"client": len(self.clients), "worker": len(self.workers), "miner": miners}
        return {
            **counted,
            "runner": len(self.runners),
            "owner": len(self.owners.sessions),
            "run": len(self.runs.sessions),
            "chain": len(self.chain),
        }

    def tend(self) -> None:
        """Called every second: what the sockets of agents owe the database."""
        self.runners.tend()

    def _error_body(self, error: Exception) -> dict[str, Any]:
        code = error.code if isinstance(error, GridError) else GridError.code
        self._services.metrics.errors.labels(code).inc()
        return error_to_ack(error)

    def _observe(self, event: str, seconds: float) -> None:
        self._services.metrics.ack.labels(event).observe(seconds)


def _limits(settings: Settings) -> WireLimits:
    largest = max(settings.message_max, settings.models_message_max)
    return WireLimits(
        message_bytes=settings.message_max,
        transport_bytes=largest + SPARE,
        backlog_bytes=largest + SPARE,
        connections=settings.sockets_max,
    )


def _origins(text: str) -> Any:
    """What python-socketio expects: `*`, or a list of origins."""
    return "*" if text == "*" else [origin.strip() for origin in text.split(",") if origin.strip()]
