"""One authenticated connection to a node's namespace `/predictions`: wagers out, receipts and game updates in.

Everything the node sends is handled in the reader's thread, in its order; nothing there waits.
"""

from __future__ import annotations

import logging
import queue
import re
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from grid_client import __version__
from grid_client.clock import Clock
from grid_client.errors import ConnectionLost, GridError
from grid_client.game_feed import INFLATED_MAX, GameFeed, InvalidUpdate, Position, Step
from grid_client.miner_identity import MinerIdentity
from grid_client.session import Push, Session
from grid_client.trust import AUTHENTICATED, UPDATE, Trust

log = logging.getLogger(__name__)

NAMESPACE = "/predictions"
CALL_TIMEOUT = 10.0
ACK_EVERY = 16
"""Updates that wait for one acknowledgement at most."""
ACK_WITHIN = 1.0
"""Seconds that they wait for it."""
LAG = 2.0
"""Seconds that the feed may lie behind a heartbeat, which overtakes updates, before it is resumed."""
MESSAGE_MAX = INFLATED_MAX + 64 * 1024
"""Bytes of one message of the node."""
SPARE = 10.0
"""Seconds of silence above two heartbeats after which the node counts as gone."""
_NONCE = re.compile(r"[0-9a-f]{64}")
_LIMITS = {"max_in_flight": 1024, "max_batch": 1024}
"""What `authenticated` may allow, at most: nobody else's number sizes our memory."""


class PredictionSocket:
    """Used once. `open` first; then `tick` often, from one thread, until `ended` is set."""

    def __init__(
        self,
        url: str,
        miner: MinerIdentity,
        feed: GameFeed,
        trust: Trust,
        *,
        clock: Clock,
        heartbeat_interval: float,
        on_end: Callable[[], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._miner = miner
        self._feed = feed
        self._trust = trust
        self._clock = clock
        self._challenges: queue.SimpleQueue[Any] = queue.SimpleQueue()
        pushes: dict[str, Push] = {
            "challenge": self._challenges.put,
            "game_update": self._take_update,
            "heartbeat": self._answer_heartbeat,
        }
        self._on_end = on_end
        self._session = Session(url, NAMESPACE, pushes, self._over, tls, MESSAGE_MAX)
        self._interval = heartbeat_interval
        self._heard_at = self._beat_at = clock.steady()
        self._doubted_at: float | None = None
        self._unacked = 0
        self._unacked_since = 0.0
        self._behind_since: float | None = None
        self._resuming_until = 0.0
        self.max_in_flight = self.max_batch = 1
        self.session_id = ""
        self.retry_after: float | None = None

    # --- the life of the connection -------------------------------------------------------------------------------

    def open(self) -> None:
        """Connects and authenticates. Raises GridError with the node's refusal, ConnectionLost, `wrong_node`."""
        try:
            self._session.connect()
            self._authenticate()
        except GridError:
            self.close()
            raise
        self._heard_at = self._beat_at = self._clock.steady()

    @property
    def ended(self) -> bool:
        return self._session.ended.is_set()

    @property
    def reason(self) -> GridError:
        """Why it ended."""
        return self._session.closing or ConnectionLost("the connection ended")

    @property
    def is_mute(self) -> bool:
        """An answer was late, and nothing was heard since."""
        return self._doubted_at is not None

    def doubt(self) -> None:
        """An answer is late: asks for a sign of life, and is mute until there is one."""
        if self._doubted_at is None:
            self._doubted_at = self._clock.steady()
            self._beat()

    def tick(self) -> None:
        """Heartbeats, acknowledgements of updates, resumption, and the end of a connection that fell silent."""
        now = self._clock.steady()
        if now - self._heard_at > 2 * self._interval + SPARE:
            log.warning("the node has been silent for %.0f s, connecting anew", now - self._heard_at)
            self.close()
            return
        if self._doubted_at is not None and now - self._doubted_at > CALL_TIMEOUT:
            log.warning("the node answers nothing, connecting anew")
            self.close()
            return
        if now - self._beat_at >= self._interval:
            self._beat()
        if self._unacked and now - self._unacked_since >= ACK_WITHIN:
            self._ack_updates()
        if self._behind_since is not None and now - self._behind_since >= LAG:
            self._resume()

    def _over(self) -> None:
        self._challenges.put(None)
        self._on_end()

    def close(self) -> None:
        self._feed.leave(self)
        self._session.close()

    # --- predictions ----------------------------------------------------------------------------------------------

    def submit(self, payload: dict[str, Any]) -> Future[Any]:
        """One message or a batch; the future ends with the ack, or with GridError when the connection does."""
        answer = self._session.send("prediction", payload)
        answer.add_done_callback(lambda done: self._heard())
        return answer

    def lookup(self, prediction_id: str) -> dict[str, Any]:
        """What the node has under this id. Raises GridError, `prediction_not_found` if that is nothing."""
        return self._session.call("prediction_status", {"prediction_id": prediction_id}, CALL_TIMEOUT)

    # --- authentication -------------------------------------------------------------------------------------------

    def _authenticate(self) -> None:
        try:
            challenge = self._challenges.get(timeout=CALL_TIMEOUT)
        except queue.Empty:
            raise ConnectionLost("the node sent no challenge") from None
        nonce = challenge.get("nonce") if isinstance(challenge, Mapping) else None
        if not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
            raise GridError("bad_answer", "the node's challenge has no nonce")
        offer: dict[str, Any] = {"compression": ["zlib"], "client": f"grid-client/{__version__}"}
        position = self._feed.follow(self)
        if position is not None:
            offer["position"] = position._asdict()
        message = self._miner.introduce(nonce, **offer)
        answer = self._session.call("authenticate", message, CALL_TIMEOUT)
        try:
            self._miner.check_authenticated(answer, message)
        except GridError as error:
            self._trust.doubt(AUTHENTICATED, error)
            raise
        self._read_limits(answer)

    def _read_limits(self, answer: Mapping[str, Any]) -> None:
        for name, most in _LIMITS.items():
            given = answer.get(name)
            if type(given) is not int or given < 1:
                raise GridError("bad_answer", f"the node's {name} is no number")
            setattr(self, name, min(given, most))
        interval = answer.get("heartbeat_interval")
        if isinstance(interval, int | float) and not isinstance(interval, bool) and interval > 0:
            self._interval = min(self._interval, float(interval))
        self.session_id = str(answer.get("session_id") or "")

    # --- heartbeats -----------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        self._beat_at = self._clock.steady()
        try:
            answer = self._session.send("heartbeat", self._miner.base_fields("heartbeat"))
        except GridError:
            return  # it ended: whoever waits for that is told
        answer.add_done_callback(self._take_answered_heartbeat)

    def _take_answered_heartbeat(self, answer: Future[Any]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._take_heartbeat(answer.result())

    def _answer_heartbeat(self, *arguments: Any) -> dict[str, Any]:
        self._take_heartbeat(arguments[0] if arguments else None)
        return self._miner.base_fields("heartbeat")

    def _take_heartbeat(self, body: object) -> None:
        self._heard()
        theirs, ours = Position.read(body), self._feed.position
        if theirs is None or ours is None:
            return
        is_behind = theirs.epoch != ours.epoch or theirs.seq > ours.seq
        if is_behind and self._behind_since is None:
            self._behind_since = self._clock.steady()

    def _heard(self) -> None:
        self._heard_at = self._clock.steady()
        self._doubted_at = None

    # --- game updates ---------------------------------------------------------------------------------------------

    def _take_update(self, *arguments: Any) -> None:
        self._heard()
        try:
            step = self._feed.apply(self, arguments[0] if arguments else None)
        except InvalidUpdate as error:
            if self._trust.doubt(UPDATE, error):
                self.close()
            else:
                self._resume()
            return
        self._trust.restore(UPDATE)
        if step is Step.APPLIED:
            self._behind_since = None
        if step is Step.GAP:
            self._resume()
        elif step is not Step.IGNORED:
            self._count_update()

    def _count_update(self) -> None:
        if not self._unacked:
            self._unacked_since = self._clock.steady()
        self._unacked += 1
        if self._unacked >= ACK_EVERY:
            self._ack_updates()

    def _ack_updates(self) -> None:
        self._unacked = 0  # before the position is read: what the reader counts meanwhile is acknowledged next time
        position = self._feed.position
        if position is None:
            return
        try:
            self._session.emit("update_ack", position._asdict())
        except GridError:
            log.debug("an acknowledgement found no connection", exc_info=True)

    def _resume(self) -> None:
        """Asks for everything after the last update that was applied, or for a snapshot; once at a time."""
        now = self._clock.steady()
        if now < self._resuming_until:
            return
        position = self._feed.position
        if position is None:  # the snapshot is under way, or came damaged: any unknown epoch brings another one
            position = Position("0" * 16, 0)
        self._resuming_until = now + CALL_TIMEOUT
        self._behind_since = None
        log.info("game updates: resuming after seq %d", position.seq)
        try:
            answer = self._session.send("resume", position._asdict())
        except GridError:
            return
        answer.add_done_callback(self._take_resumed)

    def _take_resumed(self, answer: Future[Any]) -> None:
        self._resuming_until = 0.0
        if answer.cancelled() or answer.exception() is not None:
            return
        body = answer.result()
        if isinstance(body, Mapping) and body.get("success"):
            self._heard()
            if body.get("recovered") is False:
                log.warning("game updates were lost (%s), a snapshot follows", body.get("reason"))
        else:
            self._behind_since = self._clock.steady()
