"""The node as a running thing: what starts with it, what watches, and how it ends."""

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from grid_node.chain.ledger.operating import any_subnet
from grid_node.chain.metagraph import Change
from grid_node.chain.pylon import announce
from grid_node.hosting.rows import any_runnable
from grid_node.metrics import HubWatch
from grid_node.runners.models import any_model
from grid_node.services import Services

log = logging.getLogger(__name__)

POLL_EVERY = 0.4
"""Seconds between two looks at what other processes did, where no bell was heard: news come within half a second."""
SWEEP_EVERY = 5.0
PURGE_EVERY = 600.0
SETTLE_EVERY = 1.0
TEND_EVERY = 1.0
SCRUB_EVERY = 30.0
"""Seconds between two slices of a round that is on."""


class Sockets(Protocol):
    """The Socket.IO face, as far as the node steers it."""

    def drop_invalid(self) -> None: ...

    def recheck(self) -> None: ...

    def tend(self) -> None: ...

    def shut_down(self) -> None: ...

    def connections(self) -> dict[str, int]: ...


class HttpSide(Protocol):
    """The HTTP face, likewise."""

    def drop_invalid(self) -> None: ...

    def shut_down(self) -> None: ...

    def connections(self) -> dict[str, int]: ...

    def recover(self) -> None: ...

    def tick(self) -> None: ...


class Node:
    """Starts and stops the background work of one process."""

    def __init__(self, services: Services, sockets: Sockets, http: HttpSide) -> None:
        self.services = services
        self.sockets = sockets
        self.http = http
        self.hub_watch = HubWatch(services.metrics)
        self._stopping = threading.Event()
        self._key_epoch = -1
        self._ticks = 0
        self._started = False

    def start(self) -> None:
        """Recover what a restart interrupted, then begin to serve."""
        grid = self.services
        down = grid.tending.recover()
        if down:
            log.info("leases extended by %.1f s of down time", down)
        grid.lifecycle.changed = self._changed
        grid.leases.enqueue = self._enqueue
        grid.dispatcher.rounds.observe = grid.metrics.dispatch.observe
        grid.streams.start_tail()
        grid.job_queue.start()
        grid.dispatcher.start()
        grid.tending.start()
        grid.supervisor.start()
        if grid.store.read(any_runnable):
            grid.hosting.compute.start()  # else the first model to be checked or run starts it
        grid.predicting.log.open()
        grid.predicting.predictions.intake.start()
        self._start_runners()
        announce(grid.settings, grid.chain.pylon)
        grid.chain.metagraph.on_change = self._registered_anew
        self._start_chain()
        self.http.recover()
        grid.bells.listen(self._heard)
        self.hub_watch.start()
        _loop(self._poll, POLL_EVERY, self._stopping, "poll")
        _loop(self._sweep, SWEEP_EVERY, self._stopping, "sweep")
        _loop(self._purge, PURGE_EVERY, self._stopping, "purge")
        _loop(grid.predicting.log.poll, grid.settings.games_log_poll_ms / 1000, self._stopping, "games")
        _loop(self.sockets.recheck, grid.settings.registration_recheck, self._stopping, "standing")
        _loop(self._settle, SETTLE_EVERY, self._stopping, "settlement")
        _loop(grid.hosting.encrypted.tend, SWEEP_EVERY, self._stopping, "shares")
        _loop(grid.hosting.scrub.tick, SCRUB_EVERY, self._stopping, "scrub")
        _loop(self.sockets.tend, TEND_EVERY, self._stopping, "agents")
        _loop(grid.running.cogs.tick, TEND_EVERY, self._stopping, "cogs")
        _loop(self._tend_runners, SWEEP_EVERY, self._stopping, "runners")
        _loop(grid.running.registration.tend, SWEEP_EVERY, self._stopping, "tunnels")  # waits for others' servers
        _loop(grid.chain.auto.tick, SWEEP_EVERY, self._stopping, "weights")  # waits for the chain
        self._sweep()
        self._started = True

    def _start_runners(self) -> None:
        running = self.services.running
        running.errands.begin = running.errand_process.start  # a node without models needs no process for them
        running.errands.start()
        running.dispatching.start()
        running.watching.start()

    def _start_chain(self) -> None:
        """Start the chain's process if there is a chain to look after; else its first caller does."""
        chain = self.services.chain
        if chain.is_busy or self.services.store.read(any_subnet):
            self.services.metagraph.is_used = True
            chain.link.start()

    def _registered_anew(self, change: Change) -> None:
        """Whoever is no longer registered goes."""
        if change.removed or change.replaced:
            self.sockets.recheck()
            self.sockets.drop_invalid()

    def stop(self) -> None:
        """No new work, what is in hand is finished, everybody is told, then the database is let go."""
        if not self._started or self._stopping.is_set():
            return
        self._stopping.set()
        grid = self.services
        grid.draining = True
        grid.predicting.predictions.intake.stop()
        self.http.shut_down()
        self.sockets.shut_down()
        self._stop_runners()
        grid.chain.reads.stop()
        grid.dispatcher.stop()
        grid.tending.stop()
        grid.job_queue.stop()
        grid.hosting.compute.stop(grid.settings.shutdown_grace)
        self._stop_processes()
        self.hub_watch.stop()
        grid.bells.close()
        grid.store.close()

    def _stop_runners(self) -> None:
        running = self.services.running
        running.cogs.stop()
        running.dispatching.stop()
        running.watching.stop()
        running.errands.stop()

    def _stop_processes(self) -> None:
        """All kinds at a time, so that their graces do not add up."""
        grid = self.services
        grace = grid.settings.shutdown_grace
        others = [
            threading.Thread(target=stop, args=(grace,), daemon=True)
            for stop in (grid.running.errand_process.stop, grid.chain.link.stop)
        ]
        for other in others:
            other.start()
        grid.supervisor.stop(grace)
        for other in others:
            other.join(grace + 1)

    def _enqueue(self, lease_id: str) -> None:
        self.services.census.submitted(lease_id)
        self.services.job_queue.enqueue(lease_id)

    def _changed(self) -> None:
        self.services.dispatcher.signal()
        self.services.tending.signal()

    def _heard(self) -> None:
        """Another process committed something."""
        self.services.streams.poll()
        self.services.predicting.log.poll()
        self.services.running.dispatching.signal()
        self.services.running.watching.signal()
        self._changed()

    def _poll(self) -> None:
        grid = self.services
        if grid.streams.poll():
            self._changed()
        self.http.tick()
        epoch = grid.keys.epoch()
        self._ticks += 1
        if epoch != self._key_epoch:
            self.sockets.recheck()
            self._start_chain()
        if epoch != self._key_epoch or self._ticks % 2 == 0:
            self._key_epoch = epoch
            self.sockets.drop_invalid()
            self.http.drop_invalid()
            grid.tasks.cancel_unassigned(lambda ids: grid.keys.in_force(set(ids)))

    def _sweep(self) -> None:
        grid = self.services
        grid.scoring_jobs.sweep(grid.job_queue.enqueue)
        grid.keys.flush_uses()
        while grid.store.write(lambda tx: grid.epistula.purge(tx, grid.clock.now())):
            pass  # every signed request leaves a row, and anybody can sign
        grid.census.look_at_events()

    def _settle(self) -> None:
        while self.services.predicting.settling.tick() and not self._stopping.is_set():
            pass

    def _tend_runners(self) -> None:
        running = self.services.running
        if self.services.store.read(any_model):
            running.errands.expect()
        running.deliveries.sweep()
        running.webhooks.sweep()

    def _purge(self) -> None:
        grid = self.services
        now = grid.clock.now()
        grid.tending.purge()
        grid.uploads.expire()
        grid.holds.expire()
        self.http.recover()
        grid.store.write(lambda tx: grid.limiter.purge(tx, now))
        grid.store.write(lambda tx: grid.hosting.serving.purge(tx, now))
        grid.store.write(lambda tx: grid.predicting.log.purge(tx, now))
        while grid.store.write(lambda tx: grid.predicting.settling.purge(tx, now)) and not self._stopping.is_set():
            pass
        grid.running.files.expire()
        grid.running.predictions.forget_requests()
        while grid.running.predictions.purge() and not self._stopping.is_set():
            pass
        grid.store.write(lambda tx: grid.streams.purge(tx, now - grid.settings.public_api_task_ttl))
        grid.hosting.checks.sweep(now - grid.settings.blob_gc_grace)
        grid.blobs.sweep(grid.holds.needed, now - grid.settings.blob_gc_grace)  # last: it may fail with its medium


def _loop(action: Callable[[], Any], every: float, stopping: threading.Event, name: str) -> None:
    """Run `action` every so many seconds until `stopping` is set; a failure is logged and does not end it."""

    def run() -> None:
        while not stopping.wait(every):
            try:
                action()
            except Exception:
                log.exception("%s failed", name)

    threading.Thread(target=run, name=f"grid-{name}", daemon=True).start()
