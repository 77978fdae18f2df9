"""A miner's side of predictions: an outbox that outlives it, receipts that prove what the node took, live games.

    with PredictionClient(url, keypair, node_hotkey, "outbox.db") as client:
        prediction_id = client.submit({"game_id": ..., "wager": "10.00", ...})
        receipt = client.wait(prediction_id, timeout=30)

`submit` returns once the prediction is on disk. From then on it is sent, over a socket or HTTP, always under the same
id, until the node's signed receipt is in the outbox or it is certain that there is none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random, SystemRandom
from types import TracebackType
from typing import Any, Self

from grid_client.backoff import Backoff
from grid_client.clock import Clock, SystemClock, rfc3339
from grid_client.errors import DeadlineExceeded, GridError
from grid_client.game_feed import GameFeed
from grid_client.game_notices import GameNotices, Listener
from grid_client.game_poll import GamePoll
from grid_client.miner_identity import MinerIdentity
from grid_client.node_address import check_url, tls_context
from grid_client.outbox import Entry, Outbox
from grid_client.prediction_body import complete
from grid_client.prediction_deadlines import UNKNOWN_GAME, Deadlines
from grid_client.prediction_http import PredictionHttp
from grid_client.prediction_link import Link
from grid_client.prediction_sender import Sender
from grid_client.prediction_socket import PredictionSocket
from grid_client.receipts import Receipt
from grid_client.signing import Keypair, public_keypair
from grid_client.trust import Trust

log = logging.getLogger(__name__)

RETRY_BASE, RETRY_MOST = 0.5, 30.0
"""Seconds of the pauses between tries of predictions and polls, where the node does not say how long."""
LOOK = 0.25
"""Seconds between two looks at an outbox that another process may fill."""


class PredictionClient:
    """One miner at one node. Several clients, in several processes too, may share an outbox.

    Without `start` it only files: `submit`, `wait` and `status` work, and another process does the sending.
    """

    def __init__(
        self,
        url: str,
        keypair: Keypair | None,
        node_hotkey: str,
        outbox_path: Path | str,
        *,
        websocket_enabled: bool = True,
        heartbeat_interval: float = 60,
        reconnect_base_interval: float = 5,
        max_reconnect_interval: float = 300,
        http_fallback_after: float = 10,
        ack_timeout: float = 10,
        verify_tls: bool = True,
        ca_file: Path | str | None = None,
        allow_insecure: bool = False,
        api_key: str | None = None,
        follow_games: bool = True,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        """Times are in seconds. `api_key` stands in for the keypair in a private grid. `follow_games`: False for who
        only submits; `games` stays empty then, unless a socket brings them.

        Raises GridError `insecure_url` for `http://` to another machine unless it is allowed, `bad_url`,
        `bad_ca_file`, `bad_node_hotkey`.
        """
        check_url(url, allow_insecure)
        self._url = url.rstrip("/")
        self._clock = clock or SystemClock()
        self._tls = tls_context(url, verify_tls, ca_file)
        self._websocket_enabled = websocket_enabled
        self._follows_games = follow_games
        self._heartbeat_interval = heartbeat_interval
        self._fallback_after = http_fallback_after
        verifier = public_keypair(node_hotkey)
        self._miner = MinerIdentity(keypair, api_key, node_hotkey, verifier, self._clock)
        self._trust = Trust()
        self._notices = GameNotices()
        self._feed = GameFeed(node_hotkey, verifier, self._notices.put)
        self._http = PredictionHttp(self._url, self._miner, ack_timeout, self._tls)
        self._poll_http = PredictionHttp.for_polls(self._url, self._miner, self._tls)
        self._outbox = Outbox(outbox_path)
        self._deadlines = Deadlines(self._outbox, self._miner, self._feed, self._trust, self._clock)
        self._uniform = (random or SystemRandom()).uniform
        self._link = self._new_link(reconnect_base_interval, max_reconnect_interval)
        self._sender = self._new_sender(ack_timeout, max_reconnect_interval)
        self._poll = self._new_poll(max_reconnect_interval)
        self._finished = threading.Condition()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def _new_link(self, base: float, longest: float) -> Link:
        return Link(
            self._connect,
            self._miner,
            clock=self._clock,
            backoff=Backoff(base, longest, self._uniform),
            longest_pause=longest,
            on_change=self._link_changed,
        )

    def _new_sender(self, ack_timeout: float, longest_pause: float) -> Sender:
        return Sender(
            self._outbox,
            self._miner,
            self._deadlines,
            self._trust,
            self._http,
            link=lambda: self._link.socket,
            may_use_http=self._may_use_http,
            clock=self._clock,
            backoff=Backoff(RETRY_BASE, RETRY_MOST, self._uniform),
            ack_timeout=ack_timeout,
            longest_pause=longest_pause,
            on_finished=self._tell_finished,
        )

    def _new_poll(self, longest_pause: float) -> GamePoll:
        return GamePoll(
            self._poll_http,
            self._miner,
            self._feed,
            self._trust,
            is_wanted=self._is_fallen_back,
            clock=self._clock,
            backoff=Backoff(RETRY_BASE, RETRY_MOST, self._uniform),
            longest_pause=longest_pause,
        )

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connects and sends in threads of its own; returns at once. What an earlier process left is sent first."""
        if self._threads:
            raise RuntimeError("a client is started once")
        self._link.begin()
        for name, loop in self._loops().items():
            thread = threading.Thread(target=self._keep, args=(loop,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _loops(self) -> dict[str, Callable[[threading.Event], None]]:
        loops: dict[str, Callable[[threading.Event], None]] = {
            "predictions-send": self._sender.run,
            "predictions-news": lambda stopping: self._notices.run(self._feed, stopping),
        }
        if self._follows_games:
            loops["predictions-poll"] = self._poll.run
        if self._websocket_enabled:
            loops["predictions-link"] = self._link.run
        return loops

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the threads, in so many seconds at most, and closes the outbox. What is not sent yet stays in it."""
        until = time.monotonic() + timeout
        self._stopping.set()
        self._link.close()
        self._http.shut()
        self._poll_http.shut()
        self._sender.ring()
        self._notices.wake()
        self._tell_finished()
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._http.close()
        self._poll_http.close()
        self._outbox.close()
        late = [thread.name for thread in self._threads if thread.is_alive()]
        if late:
            log.warning("still busy after %.0f s: %s", timeout, ", ".join(late))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- predictions ----------------------------------------------------------------------------------------------

    def submit(self, prediction: Mapping[str, Any]) -> str:
        """The prediction's id, once it is on disk; a prediction without `prediction_id` gets a fresh one.

        The same body under the same id is the same prediction. Raises GridError `conflict` for another body under
        a known id, `outbox_unavailable`, `invalid_prediction` for one that no node would store: of another shape, or
        without a member that each needs.
        """
        body = complete(prediction)
        now = self._clock.now()
        deadline = self._deadlines.of(body, now + UNKNOWN_GAME)
        prediction_id = self._outbox.add(self._miner.node_hotkey, self._miner.outbox_name, body, deadline, now)
        self._sender.ring()
        return prediction_id

    def wait(self, prediction_id: str, timeout: float) -> Receipt:
        """The node's verdict, an acceptance or a rejection by its rules; `timeout` in seconds.

        Raises DeadlineExceeded, which says what is in the way, and GridError with the code `conflict`, `expired`,
        `unresolved`, the node's own code for a message that it refused without a verdict, or `unknown_prediction`.
        """
        until = time.monotonic() + timeout
        while True:
            with self._finished:
                entry = self.entry(prediction_id)
                if entry.is_finished:
                    return _receipt_of(entry)
                left = until - time.monotonic()
                if left <= 0:
                    raise DeadlineExceeded(f"no receipt of {prediction_id} within {timeout:g} s{self._obstacle()}")
                self._finished.wait(min(LOOK, left))

    def _obstacle(self) -> str:
        error = self._sender.last_error or (None if self._link.socket else self._link.last_error)
        return "" if error is None else f"; {self._miner.explained(error)}"

    def entry(self, prediction_id: str) -> Entry:
        """What the outbox holds. Raises GridError `unknown_prediction`."""
        found = self._outbox.get(self._miner.node_hotkey, prediction_id)
        if found is None:
            raise GridError("unknown_prediction", f"the outbox holds no {prediction_id}")
        return found

    # --- games ----------------------------------------------------------------------------------------------------

    @property
    def games(self) -> dict[str, dict[str, Any]]:
        """All games that the node has told of, by id; empty until it did."""
        return self._feed.games

    def on_game_update(self, listener: Listener) -> None:
        """Calls back with each `GameUpdate` from now on, in order, in a thread of its own."""
        self._notices.add(listener)

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def http(self) -> PredictionHttp:
        """Single requests of this miner: `lookup`, `games`, `health`."""
        return self._http

    def explained(self, error: GridError) -> GridError:
        """The error, for people to read: with what there is to do about it, as far as this miner knows."""
        return self._miner.explained(error)

    def status(self) -> dict[str, Any]:
        """How it stands: `transport` is websocket, http or none; `position` that of the games; `outbox` entries by
        state; `bad_signatures` messages of the node that were not the node's."""
        socket, position, error = self._link.socket, self._feed.position, self._link.last_error
        at = self._link.authenticated_at
        return {
            "transport": "websocket" if socket else "http" if self._is_fallen_back() else "none",
            "miner": self._miner.address,
            "node_hotkey": self._miner.node_hotkey,
            "session_id": socket.session_id if socket else None,
            "last_auth": None if at is None else rfc3339(at),
            "last_error": None if error is None else {"code": error.code, "error": error.message},
            "position": None if position is None else position._asdict(),
            "outbox": self._outbox.counts(self._miner.node_hotkey),
            "bad_signatures": self._trust.bad_signatures,
        }

    # --- what the parts ask of each other -------------------------------------------------------------------------

    def _connect(self, on_end: Callable[[], None]) -> PredictionSocket:
        return PredictionSocket(
            self._url,
            self._miner,
            self._feed,
            self._trust,
            clock=self._clock,
            heartbeat_interval=self._heartbeat_interval,
            on_end=on_end,
            tls=self._tls,
        )

    def _link_changed(self, is_open: bool) -> None:
        if is_open:
            self._poll_http.interrupt()
            self._sender.welcome()
            log.info("connected to %s as %s", self._url, self._miner.address)
        self._sender.ring()

    def _is_fallen_back(self) -> bool:
        """Whether HTTP does all the work."""
        if self._stopping.is_set() or not self._threads:
            return False
        return not self._websocket_enabled or self._link.offline_for() >= self._fallback_after

    def _may_use_http(self) -> bool:
        socket = self._link.socket
        return self._is_fallen_back() or (socket is not None and socket.is_mute)

    def _tell_finished(self) -> None:
        with self._finished:
            self._finished.notify_all()

    def _keep(self, loop: Callable[[threading.Event], None]) -> None:
        while not self._stopping.is_set():
            try:
                loop(self._stopping)
            except Exception:  # a loop outlives a fault of ours
                log.exception("%s failed", threading.current_thread().name)
                self._stopping.wait(1.0)


def _receipt_of(entry: Entry) -> Receipt:
    receipt = entry.receipt
    if receipt is not None:
        return receipt
    error = entry.error or {}
    code = str(error.get("code") or entry.state) if entry.state == "rejected" else entry.state
    raise GridError(code, str(error.get("error") or ""), status=int(error.get("status") or 0), body=error)
