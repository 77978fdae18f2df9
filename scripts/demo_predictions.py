"""`make demo-predictions`: a node, twenty games and a miner on this machine, from odds to a receipt and a payout.

Everything that it starts it ends again, by process id, whatever happens; the exit status is 0 only when every step
was seen. The receipt stays in the output folder, to be verified without the node.
"""

import argparse
import json
import random
import secrets
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from grid_client.made_up_games import MARGIN
from grid_client.odds_model import sigmoid
from grid_client.outbox import Entry, Outbox
from grid_client.signing import load_keypair
from stage import ROOT, Failed, Stage, fresh, make_key, perform, say

TEAMS = (
    *("Albatrosses", "Badgers", "Comets", "Dolphins", "Eagles", "Falcons", "Geysers", "Hornets", "Icebergs", "Jackals"),
    *("Kites", "Lynxes", "Meteors", "Newts", "Otters", "Pumas", "Quakes", "Ravens", "Sharks", "Tigers"),
)
TIE_SHARE = 0.25
LEAST_VALUE = "0.02"
"""The miner leaves some games alone, so that it can change its mind when their odds do."""
WITHIN = 20.0
"""Seconds for each thing that should happen at once."""
RECEIPT = "receipt.json"
LEFTOVERS = (RECEIPT, "prediction.json", "tampered.json", "games.json", "miner.seed", "outbox.db", "outbox.db-wal")


def main() -> int:
    parser = argparse.ArgumentParser(description="A node, twenty games and a miner.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    folder = fresh(parser.parse_args().output, *LEFTOVERS, "outbox.db-shm")
    failed = perform(folder, play, GRID_SCORING_PROCESSES="0", GRID_COMPUTE_PROCESSES="0")
    if not failed:
        say(f"receipt {folder / RECEIPT}")
    return failed


def play(stage: Stage) -> None:
    say(f"starting a node at {stage.url} (log: {stage.folder / 'node.log'})")
    stage.start("node", "grid_node.cli.start", "serve")
    stage.wait_for("answer from the node", lambda: stage.get("/ws/health") is not None, 60)
    miner = Miner(stage, health(stage)["node_hotkey"])
    say(f"the node is {miner.node_hotkey}")
    games = made_up_games(datetime.now(UTC))
    key = open_for_business(stage, miner, games)
    miner.start()
    predict(stage, miner)
    change_odds(stage, miner, key, games)
    settle(stage, miner)
    keep_a_receipt(miner, games)


class Miner:
    """The example miner in a process of its own, and what it tells."""

    def __init__(self, stage: Stage, node_hotkey: str) -> None:
        self.node_hotkey = node_hotkey
        self.folder = stage.folder
        self._stage = stage
        self._seed = stage.folder / "miner.seed"
        self._seed.touch(0o600)
        self._seed.write_text(secrets.token_hex(32))
        self.hotkey = load_keypair(self._seed).ss58_address
        self._outbox = stage.folder / "outbox.db"
        self._options = ("--node-url", stage.url, "--node-hotkey", node_hotkey, "--outbox", str(self._outbox))
        self.told: list[str] = []
        self._read = 0

    def start(self) -> None:
        say(f"starting the example miner {self.hotkey} (log: {self.folder / 'miner.log'})")
        wallet = ("--wallet-seed-file", str(self._seed), "--least-value", LEAST_VALUE)
        self._stage.start("miner", "grid_client.cli.main", "miner", "example", *self._options, *wallet)

    def command(self, *words: str, fails: bool = False) -> str:
        """What `grid-client miner ...` prints. Raises Failed unless it ends as expected."""
        command = [sys.executable, "-m", "grid_client.cli.main", "miner", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if bool(done.returncode) != fails:
            raise Failed(f"miner {words[0]}: status {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def ask(self, *words: str) -> str:
        """`command` with what names the node and the wallet."""
        return self.command(*words, *self._options, "--wallet-seed-file", str(self._seed))

    def wait_for(self, what: str, count: int = 1) -> None:
        """Shows what the miner tells until `count` lines contain `what`. Raises Failed."""
        self._stage.wait_for(f"{what!r} from the miner", lambda: self._heard(what) >= count, WITHIN)

    def entries(self) -> list[Entry]:
        outbox = Outbox(self._outbox)
        try:
            return outbox.entries(self.node_hotkey)
        finally:
            outbox.close()

    def _heard(self, what: str) -> int:
        whole = (self.folder / "miner.log").read_text().rpartition("\n")[0].splitlines()
        for line in whole[self._read :]:
            if line.startswith(("model:", "games:", "prediction ", "receipt ")):
                say(f"   miner: {line}")
                self.told.append(line)
        self._read = len(whole)
        return sum(what in line for line in self.told)


# --- the story


def open_for_business(stage: Stage, miner: Miner, games: list[dict[str, Any]]) -> str:
    """The miner is let in and the games are there; returns the operator's API key."""
    file = stage.folder / "games.json"
    file.write_text(json.dumps({"games": games}, indent=2))
    with ThreadPoolExecutor() as pool:  # a command takes seconds, most of them to load the node's code
        key = pool.submit(make_key, stage, "demo-operator", "admin")
        allowed = pool.submit(stage.run, "flask", "miners", "allow", "add", miner.hotkey)
        imported = pool.submit(stage.run, "flask", "games", "import", str(file))
        say(f"operator: {allowed.result()}")
        say(f"operator: {imported.result()}")
        return key.result()


def predict(stage: Stage, miner: Miner) -> None:
    miner.wait_for("games: a snapshot of 20")
    miner.wait_for("prediction odds-")
    miner.wait_for("receipt ", len(miner.entries()))
    counts = health(stage)
    say(f"node: {counts['connections']} connection, {counts['active_connections']} active")


def change_odds(stage: Stage, miner: Miner, key: str, games: list[dict[str, Any]]) -> None:
    """The odds of a game that the miner left alone move: it hears of it, and makes up its mind."""
    game = next(
        game for game in games if game["game_id"] not in {entry.prediction["game_id"] for entry in miner.entries()}
    )
    game["team_a_odds"] = f"{float(game['team_a_odds']) * 1.5:.2f}"
    answer = put(stage, f"/games/{game['game_id']}", key, {"team_a_odds": game["team_a_odds"]})
    say(f"operator: odds of {game['game_id']} are {answer['game']['team_a_odds']} now (update {answer['seq']})")
    miner.wait_for(f"games: {game['game_id']} team_a_odds")
    miner.wait_for(f"odds-{game['game_id']} accepted")


def settle(stage: Stage, miner: Miner) -> None:
    """A game ends as the miner said."""
    prediction = miner.entries()[0].prediction
    game_id, outcome = prediction["game_id"], str(prediction["predicted_outcome"])
    say("operator: " + stage.run("flask", "games", "close", game_id, outcome))
    miner.wait_for(f"games: {game_id} outcome")
    answers: list[str] = []

    def settled() -> bool:
        answers.append(miner.ask("status", prediction["prediction_id"]))
        return "settled" in answers[-1]

    stage.wait_for("settlement", settled, WITHIN)
    say(answers[-1])


def keep_a_receipt(miner: Miner, games: list[dict[str, Any]]) -> None:
    """A prediction by hand, its receipt, and what the receipt is worth without the node."""
    game = games[-1]
    prediction = {
        name: game[name] for name in ("game_id", "team_a", "team_b", "team_a_odds", "team_b_odds", "tie_odds")
    }
    prediction |= {"prediction_id": "by-hand-1", "wager": "2.50", "predicted_outcome": game["team_b"]}
    prediction |= {"predicted_odds": game["team_b_odds"]}
    body, receipt, tampered = (miner.folder / name for name in ("prediction.json", RECEIPT, "tampered.json"))
    body.write_text(json.dumps(prediction))
    say("miner: " + miner.ask("submit", str(body), "--wait", f"{WITHIN:g}", "--receipt", str(receipt)))
    offline = ("--node-hotkey", miner.node_hotkey, "--prediction", str(body))
    say("anybody: " + miner.command("verify", str(receipt), *offline))
    tampered.write_text(receipt.read_text().replace('"2', '"3', 1))
    say("anybody, with one digit changed: " + miner.command("verify", str(tampered), *offline, fails=True))


# --- what it takes


def made_up_games(now: datetime, seed: int = 7) -> list[dict[str, Any]]:
    """Games of the coming days as an import takes them; the odds hold a margin of 5 %."""
    return [_game(number, now + timedelta(hours=2 + 3 * number), random.Random(seed + number)) for number in range(20)]


def _game(number: int, start: datetime, draws: random.Random) -> dict[str, Any]:
    tie = TIE_SHARE if number % 4 == 3 else 0.0
    share = sigmoid(draws.gauss(0.0, 0.8))
    odds = [
        f"{1.0 / (MARGIN * chance):.2f}" for chance in ((1.0 - tie) * share, (1.0 - tie) * (1.0 - share), tie) if chance
    ]
    return {
        "game_id": f"demo-{number + 1:02}",
        "team_a": TEAMS[number],
        "team_b": TEAMS[(number + 7) % len(TEAMS)],
        "sport": "soccer" if tie else "basketball",
        "league": "Demo League",
        "event_start_date": start.isoformat(timespec="seconds"),
        "active": True,
        "outcome": 3,
        "team_a_odds": odds[0],
        "team_b_odds": odds[1],
        "tie_odds": odds[2] if tie else None,
        "can_tie": bool(tie),
    }


def health(stage: Stage) -> dict[str, Any]:
    return dict(json.loads(stage.get("/ws/health") or "{}"))


def put(stage: Stage, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(stage.url + path, json.dumps(body).encode(), headers, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=WITHIN) as answer:
            return dict(json.load(answer))
    except OSError as error:
        raise Failed(f"PUT {path}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
