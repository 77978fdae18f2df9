"""What the load sends and how it judges the answers: miners, games, signed predictions, signed receipts.

Everything here is free of floats and has ASCII keys, so that orjson with sorted keys writes the RFC 8785 bytes.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson
from bittensor_wallet import Keypair

GAMES = 300
CHANGING = GAMES - 1
"""The game whose odds change while others are predicted."""
DAY = 86400.0
NODE_SEED = "benchmark node"


def keypair(words: str) -> Keypair:
    """The key pair of some words: the same in every process of a run, and of use nowhere else."""
    return Keypair.create_from_seed("0x" + sha256(words.encode()).hexdigest())


def miners(count: int) -> list[Keypair]:
    return [keypair(f"benchmark miner {number}") for number in range(count)]


def timestamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def games(now: float) -> list[dict[str, Any]]:
    """300 games that start within the next week, as `flask games import` reads them."""
    return [_game(number, now) for number in range(GAMES)]


def _game(number: int, now: float) -> dict[str, Any]:
    return {
        "game_id": f"bench-{number}",
        "team_a": f"Northern Lights {number}",
        "team_b": f"Southern Cross {number}",
        "sport": "football",
        "league": "benchmark",
        "create_date": timestamp(now),
        "last_update_date": timestamp(now),
        "event_start_date": timestamp(now + DAY * (1 + number % 7)),
        "active": True,
        "outcome": 3,
        "team_a_odds": "1.80",
        "team_b_odds": "2.10",
        "tie_odds": "3.40",
        "can_tie": True,
    }


def prediction(run: str, miner: int, number: int) -> dict[str, Any]:
    game = (miner + number) % CHANGING
    return {
        "prediction_id": f"{run}-{miner}-{number}",
        "game_id": f"bench-{game}",
        "team_a": f"Northern Lights {game}",
        "team_b": f"Southern Cross {game}",
        "wager": "1.00",
        "predicted_outcome": 1,
        "predicted_odds": "2.10",
        "team_a_odds": "1.80",
        "team_b_odds": "2.10",
        "tie_odds": "3.40",
        "model_name": "benchmark",
    }


def base(sender: str, receiver: str, message_type: str, **members: Any) -> dict[str, Any]:
    return {
        "message_id": str(uuid.uuid4()),
        "sender_hotkey": sender,
        "receiver_hotkey": receiver,
        "timestamp": timestamp(time.time()),
        "message_type": message_type,
        **members,
    }


def covered(message: dict[str, Any]) -> bytes:
    """What a signature of this message covers; `message` is without it."""
    canonical = orjson.dumps(message, option=orjson.OPT_SORT_KEYS)
    return f"grid.v1.{message['message_type']}.{sha256(canonical).hexdigest()}".encode()


def sign(signer: Keypair, message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "signature": "0x" + signer.sign(covered(message)).hex()}


@dataclass(frozen=True)
class Signed:
    """A prediction as it goes out."""

    prediction_id: str
    text: bytes


def predictions(signer: Keypair, receiver: str, run: str, miner: int, count: int) -> list[Signed]:
    """`count` signed messages of one miner, each with an id of its own."""
    sent = []
    for number in range(count):
        body = prediction(run, miner, number)
        message = base(signer.ss58_address, receiver, "prediction", prediction=body)
        sent.append(Signed(body["prediction_id"], orjson.dumps(sign(signer, message))))
    return sent


def check_receipts(receipts: list[dict[str, Any]], expected: list[str], node_hotkey: str, sample: int) -> None:
    """Every id was accepted, in the order in which it was sent; the signatures of `sample` of them are good.

    Raises RuntimeError.
    """
    refused = [receipt for receipt in receipts if receipt.get("success") is not True]
    if refused:
        raise RuntimeError(f"{len(refused)} of {len(receipts)} were refused: {refused[0]}")
    if [receipt["prediction_id"] for receipt in receipts] != expected:
        raise RuntimeError("the receipts are not those of what was sent")
    node = Keypair(ss58_address=node_hotkey)
    for receipt in receipts[:: max(1, len(receipts) // sample)]:
        signature = bytes.fromhex(receipt.pop("signature")[2:])
        if not node.verify(covered(receipt), signature):
            raise RuntimeError(f"the signature of {receipt['prediction_id']} is bad")
