"""The one way in: a miner's submissions are judged in the order of their arrival, many with one commit.

A submission takes its place the moment it arrives. Then it is checked, which may take a while: the ones of its miner
that come after it wait for it, those of others do not. A single task takes whatever waits, up to the store's batch,
into one unit of work. While the disk is busy with one commit the next batch gathers, so the number of commits follows
the disk and not the miners. Nobody who waits is left without an answer: what takes longer than the commit timeout is
answered by the watch.
"""

import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import (
    CommitTimeout,
    GridError,
    Overloaded,
    ShuttingDown,
    StorageUnavailable,
    StoreFull,
    StoreUnavailable,
)
from grid_node.predictions.submission import Submission
from grid_node.settings import Settings

log = logging.getLogger(__name__)

Judge = Callable[[Transaction, list[Submission]], None]
WATCH = 0.1
"""Seconds between two looks for submissions whose time is over."""


class Intake:
    """A bounded FIFO in front of the database. `judge` is the unit of work; it may run twice for one submission."""

    def __init__(self, store: Store, clock: Clock, settings: Settings, judge: Judge) -> None:
        self._store = store
        self._clock = clock
        self._judge = judge
        self._batch = settings.commit_batch
        self._timeout = settings.prediction_commit_timeout
        self._most = settings.prediction_queue_max
        self._most_of_one = max(self._most // 2, settings.prediction_max_batch)
        self._lanes: defaultdict[str, deque[Submission]] = defaultdict(deque)
        """Of each miner what is being checked, and what came after that."""
        self._queue: deque[Submission] = deque()
        self._hand: deque[Submission] = deque()
        """Everything that is not answered, oldest first."""
        self._lock = threading.Lock()
        self._size = 0
        self._sizes: Counter[str] = Counter()
        """Predictions that wait, by miner."""
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.observe: Callable[[Submission], None] = lambda submission: None
        """Told of each submission that was judged and committed."""

    def __len__(self) -> int:
        """Predictions that wait."""
        return self._size

    def start(self) -> None:
        for name, loop in (("grid-predictions", self._run), ("grid-prediction-watch", self._watch)):
            thread = threading.Thread(target=loop, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Take nothing more; what waits is judged, committed and answered."""
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(self._timeout)
        for submission in self._hand:
            submission.refuse(ShuttingDown())

    def place(self, submission: Submission) -> bool:
        """Give a submission its time and its place; `add` must follow. False: there is no room, and it is answered."""
        with self._lock:
            miner = submission.miner.identity
            refusal = self._refusal(miner, submission.size)
            if refusal is None:
                submission.received_at = self._clock.now()
                submission.expires = time.monotonic() + self._timeout
                self._size += submission.size
                self._sizes[miner] += submission.size
                self._lanes[miner].append(submission)
                self._hand.append(submission)
        if refusal is not None:
            submission.refuse(refusal)
        return refusal is None

    def add(self, submission: Submission) -> None:
        """The submission is checked. Never waits."""
        with self._lock:
            submission.is_checked = True
            lane = self._lanes[submission.miner.identity]
            while lane and lane[0].is_checked:
                self._queue.append(lane.popleft())
            if not lane:
                del self._lanes[submission.miner.identity]
        self._wake.set()

    def _refusal(self, miner: str, size: int) -> GridError | None:
        """One miner may fill half of the queue, so that a slow disk is not one miner's alone."""
        if self._stopping.is_set():
            return ShuttingDown()
        if self._size + size > self._most or self._sizes[miner] + size > self._most_of_one:
            return Overloaded(retry_after=1)
        return None

    # --- the task that judges -----------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while batch := self._take():
                self._process(batch)
            if self._stopping.is_set() and not self._size:
                return

    def _take(self) -> list[Submission]:
        """What waits, oldest first, up to a batch of predictions; whoever was given up meanwhile is passed over."""
        batch: list[Submission] = []
        taken = 0
        with self._lock:
            while self._queue and taken < self._batch:
                submission = self._queue.popleft()
                self._forget(submission)
                if not submission.pending.finished:
                    taken += submission.size
                    batch.append(submission)
        return batch

    def _forget(self, submission: Submission) -> None:
        """It waits no more. Holds the lock."""
        miner = submission.miner.identity
        self._size -= submission.size
        self._sizes[miner] -= submission.size
        if not self._sizes[miner]:
            del self._sizes[miner]

    def _process(self, batch: list[Submission]) -> None:
        try:
            self._store.write(lambda tx: self._judge(tx, batch))
        except (StoreUnavailable, StoreFull) as error:
            log.error("predictions could not be stored: %s", error.message)
            _refuse_all(batch, StorageUnavailable(retry_after=error.retry_after or 1))
        except Exception:
            log.exception("predictions could not be judged")
            self._one_by_one(batch)
        else:
            for submission in batch:
                self._answer(submission)

    def _one_by_one(self, batch: list[Submission]) -> None:
        """A fault of ours takes nobody else's prediction down with it."""
        if len(batch) == 1:
            batch[0].refuse(GridError())
            return
        for submission in batch:
            self._process([submission])

    def _answer(self, submission: Submission) -> None:
        try:
            submission.pending.finish(submission.answer())
            self.observe(submission)
        except Exception:
            log.exception("an answer could not be given")

    # --- the task that watches ----------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH):
            self.expire(time.monotonic())

    def expire(self, now: float) -> None:
        """Answer those whose time is over; what became of their predictions is not known."""
        while self._hand and (self._hand[0].pending.finished or self._hand[0].expires <= now):
            oldest = self._hand.popleft()
            if not oldest.pending.finished:
                oldest.refuse(CommitTimeout(retry_after=1))


def _refuse_all(batch: list[Submission], error: GridError) -> None:
    for submission in batch:
        submission.refuse(error)
