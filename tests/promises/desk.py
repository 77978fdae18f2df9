"""The service of predictions without a face: real rows, a clock that a test moves, a restart that costs nothing."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bittensor_wallet import Keypair

from grid_node.clock import ManualClock, rfc3339
from grid_node.database import GroupCommitStore, Store, make_engine
from grid_node.identity.hotkeys import check_message, decode_hotkey
from grid_node.identity.node_key import NodeKey
from grid_node.metrics import Metrics
from grid_node.predictions.games import Games
from grid_node.predictions.pending import Answer, Pending
from grid_node.predictions.ports import Miner
from grid_node.predictions.service import Predictions
from grid_node.predictions.update_log import UpdateLog
from grid_node.settings import Settings
from tests.miners import DAY, base, game, keypair, prediction_body, public_key, signed
from tests.stores import call

WAIT = 20.0
NODE = keypair("the node of the desk")
LIFTED = {"prediction_rate": 1e6, "prediction_burst": 10**6}


class Signing:
    """The node's key with the desk's clock, and the public side of everybody else's."""

    hotkey = str(NODE.ss58_address)

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._key = NodeKey(NODE)

    def base_fields(self, message_type: str) -> dict[str, Any]:
        return self._key.base_fields(message_type, self._clock)

    def signed(self, message: Any) -> dict[str, Any]:
        return self._key.sign_message(message)

    def decode(self, hotkey: object) -> bytes:
        return decode_hotkey(hotkey)

    def check(self, public_key: bytes, message: Any) -> None:
        check_message(public_key, message)


class Desk:
    """Takes predictions while it is open. `again` is what a restart leaves: the store and the clock."""

    def __init__(self, store: Store, clock: ManualClock | None = None, **settings: Any) -> None:
        self.store = store
        self.clock = clock or ManualClock()
        self.settings = Settings.load({}, **{**LIFTED, **settings})
        self._given = settings
        signing = Signing(self.clock)
        self.log = UpdateLog(store, self.clock, self.settings, signing)
        self.log.open()
        self.games = Games(store, self.clock, self.settings, self.log)
        self.predictions = Predictions(store, self.clock, self.settings, signing, signing, self.log, Metrics())
        self.predictions.intake.start()

    def close(self) -> None:
        self.predictions.intake.stop()

    def again(self) -> "Desk":
        self.close()
        return Desk(self.store, self.clock, **self._given)

    # --- games

    def put_games(self, *games: dict[str, Any]) -> None:
        self.games.import_games([dict(one) for one in games], assume_utc=False, dry_run=False)

    def game(self, game_id: str = "nfl-17", **members: Any) -> dict[str, Any]:
        """`tests.miners.game` by the clock of the desk."""
        now = self.clock.now()
        dates = {"create_date": rfc3339(now), "last_update_date": rfc3339(now), "event_start_date": rfc3339(now + DAY)}
        return game(game_id, **{**dates, **members})

    # --- miners

    def message(self, keypair: Keypair, body: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
        """A signed message in a fresh envelope, of `body` or of `prediction_body(**members)`."""
        envelope = base(keypair, "prediction", self.clock.now())
        prediction = prediction_body(**members) if body is None else body
        return signed(keypair, {**envelope, "receiver_hotkey": Signing.hotkey, "prediction": prediction})

    def submit(self, keypair: Keypair, payload: object, transport: str = "websocket", **options: Any) -> Pending:
        return self.predictions.submit(miner_of(keypair), payload, transport, **options)

    def send(self, keypair: Keypair, payload: object, transport: str = "websocket") -> Answer:
        answer = self.submit(keypair, payload, transport).wait(WAIT)
        assert answer is not None, "no answer"
        return answer

    def predict(self, keypair: Keypair, **members: Any) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.send(keypair, self.message(keypair, **members)).text)
        return body

    def receipts(self, keypair: Keypair) -> list[dict[str, Any]]:
        """Every receipt of a miner, by seq."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.predictions.list(miner_of(keypair), found[-1]["seq"] if found else 0, 500)
            if not page["predictions"]:
                return found
            found += [row["receipt"] for row in page["predictions"]]


@contextlib.contextmanager
def opened_desk(
    folder: Path, template: Path, commit: Callable[[Callable[[], Any]], Any] = call, **settings: Any
) -> Iterator[Desk]:
    """A desk with one game, on a SQLite store of its own in this folder whose commits go through `commit`."""
    shutil.copy(template, folder / "grid.db")
    store = GroupCommitStore(make_engine(f"sqlite:///{folder / 'grid.db'}"), commit)
    desk = Desk(store, **settings)
    try:
        desk.put_games(desk.game())
        yield desk
    finally:
        desk.close()
        store.close()


def miner_of(keypair: Keypair, uid: int | None = None) -> Miner:
    key = public_key(keypair)
    return Miner(key.hex(), str(keypair.ss58_address), key, uid)
