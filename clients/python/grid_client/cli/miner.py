"""`grid-client miner ...`: follow a node's games and send it predictions."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from grid_client.cli import miner_outbox, wallets
from grid_client.cli.miner_outbox import OUTBOX, receipt_line
from grid_client.cli.miner_story import Story, game_row, prediction_text
from grid_client.cli.printing import say
from grid_client.cli.signals import until_signalled
from grid_client.errors import GridError
from grid_client.odds_miner import OddsMiner
from grid_client.odds_model import fit, read_past_games
from grid_client.predictions import PredictionClient
from grid_client.receipts import InvalidReceipt, Receipt, verify_receipt

STOP_WITHIN = 10.0
"""Seconds that a command which ends leaves the sender for what is under way; the rest stays in the outbox."""
BETWEEN_LOOKS = 0.5
"""Seconds between two looks of the example miner at games and receipts."""
HEALTH = ("connections", "active_connections", "pending", "node_hotkey")
WORDS = {"true": True, "1": True, "false": False, "0": False}


def add_options(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _node_options(_command(commands, "run", "send what is in the outbox and follow the games", run), socket=True)
    _example_options(_command(commands, "example", "run, and predict by odds and past games", example))
    _submit_options(_command(commands, "submit", "put a prediction into the outbox", submit))
    _status_options(_command(commands, "status", "the node, the outbox, or one prediction", status))
    _games_options(_command(commands, "games", "the games that the node has", games))
    miner_outbox.add_options(commands)


def _command(commands: Any, name: str, text: str, command: Callable[[argparse.Namespace], int]) -> Any:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command, verbose=name in ("run", "example"))
    return parser


def _node_options(parser: argparse.ArgumentParser, *, socket: bool = False) -> None:
    parser.add_argument("--node-url", default=os.environ.get("GRID_URL"), help="such as https://node.example")
    parser.add_argument("--node-hotkey", required=True, metavar="SS58", help="the node's address; signed for it alone")
    parser.add_argument("--outbox", type=Path, default=OUTBOX, help=f"file (default {OUTBOX})")
    parser.add_argument("--api-key", help="private grid, in place of a wallet")
    parser.add_argument("--allow-insecure", action="store_true", help="plain http:// beyond this machine")
    parser.add_argument("--ca-file", type=Path, help="certificates that vouch for the node")
    wallets.add_options(parser)
    if socket:
        _socket_options(parser)


def _socket_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("connection")
    group.add_argument("--websocket_enabled", type=_word, default=True, metavar="True|False")
    for name, seconds, text in (
        ("--websocket_heartbeat_interval", 60.0, "between two heartbeats"),
        ("--websocket_reconnect_base_interval", 5.0, "first wait before a new connection"),
        ("--websocket_max_reconnect_interval", 300.0, "longest wait before a new connection"),
        ("--http-fallback-after", 10.0, "without a socket until HTTP takes over"),
        ("--ack-timeout", 10.0, "until an answer is late and HTTP takes over"),
    ):
        help_text = f"seconds {text} (default {seconds:g})"
        group.add_argument(name, type=_seconds, default=seconds, metavar="SECONDS", help=help_text)


def _example_options(parser: argparse.ArgumentParser) -> None:
    _node_options(parser, socket=True)
    group = parser.add_argument_group("example model")
    group.add_argument("--past-games", type=Path, metavar="CSV", help="to fit on; default: made-up ones")
    group.add_argument("--budget", type=_money, default=Decimal("1000.00"), help="(default 1000.00)")
    group.add_argument("--fraction", type=_money, default=Decimal("0.01"), help="of it, for each wager (default 0.01)")
    text = "expected win for each unit wagered (default 0)"
    group.add_argument("--least-value", type=float, default=0.0, metavar="VALUE", help=text)


def _submit_options(parser: argparse.ArgumentParser) -> None:
    _node_options(parser)
    parser.add_argument("file", metavar="FILE", help="the prediction as JSON; - reads stdin")
    parser.add_argument("--wait", type=_seconds, metavar="SECONDS", help="send it by HTTP and wait for the receipt")
    parser.add_argument("--receipt", type=Path, metavar="FILE", help="where to write the receipt (with --wait)")


def _status_options(parser: argparse.ArgumentParser) -> None:
    _node_options(parser)
    parser.add_argument("prediction_id", nargs="?", help="what the node knows of this prediction")


def _games_options(parser: argparse.ArgumentParser) -> None:
    _node_options(parser)
    parser.add_argument("--sport")
    parser.add_argument("--league")
    parser.add_argument("--active", choices=("true", "false"))
    parser.add_argument("--json", action="store_true")


# --- commands


def run(options: argparse.Namespace) -> int:
    return _follow(options, lambda client, story: lambda: None)


def example(options: argparse.Namespace) -> int:
    correction = fit(read_past_games(options.past_games))
    say(f"model: sigmoid({correction.a:.3f} + {correction.b:.3f} * logit(implied probability))")
    bets = {"budget": options.budget, "fraction": options.fraction, "least_value": options.least_value}
    return _follow(options, lambda client, story: Predicting(client, OddsMiner(client, correction, **bets), story).look)


def submit(options: argparse.Namespace) -> int:
    """Exit 0 once the prediction is in the outbox; with --wait, once it is accepted, and 1 if it is not."""
    if options.receipt and options.wait is None:
        raise ValueError("--receipt needs --wait: without it there is no receipt to write")
    prediction = miner_outbox.read_file(options.file)
    if not isinstance(prediction, dict):
        raise ValueError(f"{options.file} holds no prediction, which is a JSON object")
    with _client(options, websocket_enabled=False, follow_games=False) as client:
        prediction_id = client.submit(prediction)
        if options.wait is None:
            say(f"in the outbox: {prediction_id}")
            return 0
        client.start()
        receipt = client.wait(prediction_id, options.wait)
    _keep(receipt, options.receipt)
    return 0 if receipt.accepted else 1


def status(options: argparse.Namespace) -> int:
    """Exit 1 when the node does not answer, is another one, or knows nothing of the prediction."""
    with _client(options) as client:
        if options.prediction_id is not None:
            say(_checked(client.http.lookup(options.prediction_id), options))
            return 0
        stand = client.status()
        say(f"miner: {stand['miner']}")
        say("outbox: " + ", ".join(f"{count} {state}" for state, count in stand["outbox"].items()))
        health = client.http.health()
        told = [f"{name} {health.get(name)}" for name in HEALTH]
        say(f"node: {health.get('status')}, " + ", ".join(told))
    if health.get("node_hotkey") == options.node_hotkey:
        return 0
    raise GridError("wrong_node", f"{options.node_url} is not the node {options.node_hotkey}")


def games(options: argparse.Namespace) -> int:
    with _client(options) as client:
        found = client.http.games()
    chosen = {game_id: game for game_id, game in _games_of(found) if _is_asked_for(game, options)}
    if options.json:
        say(json.dumps({**found, "games": chosen}))
        return 0
    for game_id, game in chosen.items():
        say(game_row(game_id, game))
    return 0


# --- how


class Predicting:
    """The example miner's turn: what it submits, and what came of it."""

    def __init__(self, client: PredictionClient, miner: OddsMiner, story: Story) -> None:
        self._client = client
        self._miner = miner
        self._story = story
        self._open: list[str] = []

    def look(self) -> None:
        for prediction_id in self._miner.look():
            self._story.submitted(self._client.entry(prediction_id).prediction)
            self._open.append(prediction_id)
        entries = [self._client.entry(prediction_id) for prediction_id in self._open]
        self._story.finished([entry for entry in entries if entry.is_finished])
        self._open = [entry.prediction_id for entry in entries if not entry.is_finished]


def _follow(options: argparse.Namespace, turn_of: Callable[[PredictionClient, Story], Callable[[], None]]) -> int:
    """Tell the story of the games, and take a turn again and again, until a signal comes."""
    stopping, story = threading.Event(), Story(say)
    with _client(options, **_connection(options)) as client:

        def work() -> None:
            turn = turn_of(client, story)
            client.on_game_update(story.updated)
            client.start()
            while not stopping.wait(BETWEEN_LOOKS):
                turn()

        until_signalled(work, stopping.set)
    return 0


@contextlib.contextmanager
def _client(options: argparse.Namespace, **connection: Any) -> Iterator[PredictionClient]:
    """Stopped at the end. A refusal leaves it with what there is to do about it."""
    client = _new_client(options, **connection)
    try:
        yield client
    except GridError as error:
        raise client.explained(error) from None
    finally:
        client.stop(STOP_WITHIN)


def _new_client(options: argparse.Namespace, **connection: Any) -> PredictionClient:
    keypair = wallets.keypair_of(options)
    api_key = options.api_key or (None if keypair else os.environ.get("GRID_WORKER_API_KEY"))
    if not options.node_url:
        raise ValueError("give --node-url or set GRID_URL")
    if (keypair is None) == (api_key is None):
        raise ValueError("give a wallet (--wallet-seed-file or --wallet-name) or, in a private grid, --api-key")
    return PredictionClient(
        options.node_url,
        keypair,
        options.node_hotkey,
        options.outbox.expanduser(),
        ca_file=options.ca_file,
        allow_insecure=options.allow_insecure,
        api_key=api_key,
        **connection,
    )


def _connection(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "websocket_enabled": options.websocket_enabled,
        "heartbeat_interval": options.websocket_heartbeat_interval,
        "reconnect_base_interval": options.websocket_reconnect_base_interval,
        "max_reconnect_interval": options.websocket_max_reconnect_interval,
        "http_fallback_after": options.http_fallback_after,
        "ack_timeout": options.ack_timeout,
    }


def _keep(receipt: Receipt, file: Path | None) -> None:
    say(receipt_line(receipt))
    if file is not None:
        file.write_text(json.dumps(receipt.document, indent=2) + "\n", encoding="utf-8")


def _checked(answer: dict[str, Any], options: argparse.Namespace) -> str:
    """What the node says of a prediction, in words. Raises InvalidReceipt unless its receipt is genuine."""
    verify_receipt(answer.get("receipt"), options.node_hotkey)
    if Receipt.of(answer["receipt"]).prediction_id != options.prediction_id:
        raise InvalidReceipt("it is about another prediction")
    return prediction_text(answer)


def _games_of(answer: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = answer.get("games")
    if not isinstance(found, dict) or not all(isinstance(game, dict) for game in found.values()):
        raise GridError("bad_answer", "the node's answer holds no games")
    return sorted(found.items())


def _is_asked_for(game: dict[str, Any], options: argparse.Namespace) -> bool:
    is_active = None if options.active is None else options.active == "true"
    asked = {"sport": options.sport, "league": options.league, "active": is_active}
    return all(value is None or game.get(name) == value for name, value in asked.items())


# --- values


def _word(text: str) -> bool:
    try:
        return WORDS[text.strip().lower()]
    except KeyError:
        raise argparse.ArgumentTypeError("must be True, False, 1 or 0") from None


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1e9:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _money(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError("must be a number") from None
    if not value.is_finite() or value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value
