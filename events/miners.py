"""The sockets of `/predictions`: who is behind each, what it may still ask for, and when it was last heard."""

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum

from grid_node.errors import AlreadyAuthenticated, AuthFailed, GridError, NotAuthenticated, ServerFull
from grid_node.identity.bad_keys import network_of
from grid_node.identity.challenge import Challenge
from grid_node.predictions.broadcast import Follower
from grid_node.predictions.ports import Miner

FAULTS = 20
"""Answers `invalid_message` within FAULTS_SECONDS that end a connection."""
FAULTS_SECONDS = 60.0
RETRY_FULL = 5
"""Seconds after which a socket that found no room may come again."""


class State(Enum):
    """Where a socket is in its life; the transport ends right after `CLOSED`."""

    PENDING = "pending"
    OPEN = "open"
    CLOSED = "closed"


class Flow:
    """What one socket may have unanswered, and how often it may err."""

    __slots__ = ("_faults", "_in_flight", "_lock", "_most", "_refused")

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._in_flight = 0
        self._refused = 0
        self._faults: deque[float] = deque(maxlen=FAULTS)

    def take(self) -> bool:
        """One more message in hand; False when there are too many already."""
        with self._lock:
            if self._in_flight >= self._most:
                self._refused += 1
                return False
            self._in_flight += 1
            return True

    def free(self) -> None:
        """One of them is answered."""
        with self._lock:
            self._in_flight -= 1
            self._refused = 0

    @property
    def is_violated(self) -> bool:
        """Three times as many messages as it may send, and not one was answered meanwhile."""
        return self._refused >= 2 * self._most

    def fault(self, now: float, count: int = 1) -> bool:
        """Note malformed messages; True when they are too many for the last minute."""
        with self._lock:
            self._faults.extend([now] * min(count, FAULTS))
            return len(self._faults) == FAULTS and now - self._faults[0] < FAULTS_SECONDS


@dataclass(eq=False, slots=True)
class MinerSession:
    """One socket. Times are those of the steady clock, in seconds."""

    sid: str
    ip: str
    challenge: Challenge
    connected_at: float
    flow: Flow
    follower: Follower
    state: State = State.PENDING
    tried: bool = False
    miner: Miner | None = None
    compressed: bool = False
    """Whether it takes large updates as zlib."""
    heard_at: float = 0.0
    heartbeat_at: float = 0.0
    """When the next heartbeat is due."""
    refusal: GridError | None = None
    """Why this miner may predict no more."""
    asking: threading.Lock = field(default_factory=threading.Lock)
    """Held while a question of this socket is answered: one after the other, and others get their turn in between."""

    def refused(self) -> GridError | None:
        return self.refusal


class MinerSessions:
    """All of them. What a session is, and which one a miner is reached by, changes under one lock."""

    def __init__(self, most: int, most_pending: int) -> None:
        """`most` sockets in all, `most_pending` from one address before they have authenticated."""
        self._most = most
        self._most_pending = most_pending
        self._lock = threading.Lock()
        self._by_sid: dict[str, MinerSession] = {}
        self._by_miner: dict[str, MinerSession] = {}
        self._pending: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_sid)

    def add(self, session: MinerSession) -> None:
        """Raises ServerFull."""
        with self._lock:
            network = network_of(session.ip)
            if len(self._by_sid) >= self._most or self._pending[network] >= self._most_pending:
                raise ServerFull(retry_after=RETRY_FULL)
            self._by_sid[session.sid] = session
            self._pending[network] += 1

    def get(self, sid: str) -> MinerSession | None:
        return self._by_sid.get(sid)

    def attempt(self, sid: str) -> MinerSession:
        """The session for its one try to authenticate. Raises AlreadyAuthenticated, AuthFailed, NotAuthenticated."""
        with self._lock:
            session = self._by_sid.get(sid)
            if session is None:
                raise NotAuthenticated()
            if session.state is State.OPEN:
                raise AlreadyAuthenticated()
            if session.tried:
                raise AuthFailed()
            session.tried = True
            return session

    def let_in(self, session: MinerSession, miner: Miner) -> MinerSession | None:
        """Open the session; returns the one that the miner had before. Raises NotAuthenticated for one that ended."""
        with self._lock:
            if session.state is not State.PENDING:
                raise NotAuthenticated()
            session.state, session.miner = State.OPEN, miner
            self._settle_pending(session)
            older = self._by_miner.get(miner.identity)
            self._by_miner[miner.identity] = session
            return older

    def opened(self, sid: str) -> tuple[MinerSession, Miner]:
        """Raises NotAuthenticated."""
        session = self._by_sid.get(sid)
        if session is None or session.miner is None:
            raise NotAuthenticated()
        return session, session.miner

    def remove(self, session: MinerSession) -> bool:
        """Forget it; False when that was done before. A newer session of the same miner stays."""
        with self._lock:
            if self._by_sid.pop(session.sid, None) is None:
                return False
            if session.state is State.PENDING:
                self._settle_pending(session)
            session.state = State.CLOSED
            if session.miner is not None and self._by_miner.get(session.miner.identity) is session:
                del self._by_miner[session.miner.identity]
            return True

    def _settle_pending(self, session: MinerSession) -> None:
        network = network_of(session.ip)
        self._pending[network] -= 1
        if not self._pending[network]:
            del self._pending[network]

    def all(self) -> list[MinerSession]:
        return list(self._by_sid.values())

    def with_miners(self) -> list[tuple[MinerSession, Miner]]:
        """The open ones."""
        return [(session, session.miner) for session in self.all() if session.miner is not None]

    def counts(self, heard_since: float) -> dict[str, int]:
        """Sockets that are open, those of them heard at `heard_since` or later, and those not yet open."""
        opened = [session for session, _ in self.with_miners()]
        active = sum(session.heard_at >= heard_since for session in opened)
        return {"connections": len(opened), "active": active, "pending": len(self) - len(opened)}
