"""`flask predictions`: what miners predicted, with the receipts they got, and whether a receipt is genuine."""

import json
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup
from grid_client.receipts import OTHER_NODE, InvalidReceipt, read_json, verify_receipt
from sqlalchemy import Select, select

from grid_node.cli.answers import answers, fail
from grid_node.clock import rfc3339
from grid_node.errors import PredictionNotFound
from grid_node.identity.hotkeys import decode_hotkey, encode_hotkey
from grid_node.predictions.messages import PREDICTION_ID
from grid_node.predictions.money import money_text, odds_text
from grid_node.predictions.tables import MinerPrediction, Settlement
from grid_node.services import services

predictions_cli = AppGroup("predictions", help="Predictions of all miners: list, show, verify.")

rows = MinerPrediction.__table__
settlements = Settlement.__table__
ESCAPED = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Control characters that canonical JSON leaves as they are, and a terminal obeys."""
FILE_MAX = 1024 * 1024
"""Bytes; a receipt has about a thousand."""

as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
of_miner = click.option("--miner", metavar="HOTKEY", help="Only predictions of this miner: SS58, or key:<id>.")
json_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@predictions_cli.command("list")
@of_miner
@click.option("--limit", default=50, type=click.IntRange(1, 1000), help="How many at most.")
@as_json
def list_predictions(miner: str | None, limit: int, as_json: bool) -> None:
    """Print miner|seq|id|game|code|wager|outcome|odds|payout|received_at, newest first; - where there is none."""
    with answers():
        found = _rows(_statement(miner).order_by(*_newest_first(miner)).limit(limit))
    lines = [_line(row) for row in found]
    if as_json:
        click.echo(json.dumps(lines))
        return
    for line in lines:
        click.echo("|".join("-" if value is None else str(value) for value in line.values()))


@predictions_cli.command("show")
@click.argument("prediction_id")
@of_miner
@as_json
def show(prediction_id: str, miner: str | None, as_json: bool) -> None:
    """Print a prediction with what was sent and its receipt. Two miners may use one id: then say which."""
    with answers():
        if not PREDICTION_ID.fullmatch(prediction_id):
            raise PredictionNotFound()
        found = _rows(_statement(miner).where(rows.c.prediction_id == prediction_id).limit(2))
        if not found:
            raise PredictionNotFound()
    if len(found) > 1:
        raise fail("More than one miner used this id: name one with --miner", 1)
    row, line = found[0], _line(found[0])
    if as_json:
        whole = {**line, "prediction": json.loads(row.body), "receipt": json.loads(row.receipt)}
        click.echo(json.dumps(whole, indent=2, ensure_ascii=False))
        return
    for name, value in {**line, "prediction": row.body, "receipt": row.receipt}.items():
        click.echo(f"{name}: {'-' if value is None else str(value).translate(ESCAPED)}")


@predictions_cli.command("verify")
@click.argument("receipt", type=json_file)
@click.option("--node-hotkey", metavar="SS58", help="The node that must have signed; by default this one.")
@click.option("--prediction", type=json_file, help="What was sent: the receipt must be about this very body.")
def verify(receipt: Path, node_hotkey: str | None, prediction: Path | None) -> None:
    """Check a receipt in a file: its signature, its members, and with --prediction its body. Asks nobody.

    Takes the confirmation itself or an answer that holds it as `receipt`; the prediction with or without envelope.
    """
    with answers():
        hotkey = node_hotkey or services().node_key.hotkey
        decode_hotkey(hotkey)
    stated = _member(_read(receipt), "receipt")
    sent = None if prediction is None else _member(_read(prediction), "prediction")
    try:
        verify_receipt(stated, hotkey, sent)
    except InvalidReceipt as invalid:
        is_hint = invalid.reason == OTHER_NODE and node_hotkey is None
        hint = " (--node-hotkey names a node other than this one)" if is_hint else ""
        raise fail(f"Not genuine: {invalid.reason}{hint}", 1) from None
    verdict = "accepted" if stated["success"] else f"rejected ({stated['code']})"
    click.echo(f"Genuine: {stated['prediction_id']} of {stated['receiver_hotkey']}, {verdict}, seq {stated['seq']}")


# --- rows ----------------------------------------------------------------------------------------------------------


def _statement(miner: str | None) -> Select[Any]:
    """Predictions with their settlement. Raises InvalidHotkey."""
    here = (settlements.c.miner == rows.c.miner) & (settlements.c.prediction_id == rows.c.prediction_id)
    statement = select(rows, settlements.c.payout).select_from(rows.outerjoin(settlements, here))
    return statement if miner is None else statement.where(rows.c.miner == _identity(miner))


def _newest_first(miner: str | None) -> tuple[Any, ...]:
    """Each order has an index."""
    return (rows.c.seq.desc(),) if miner is not None else (rows.c.received_at.desc(), rows.c.miner, rows.c.seq.desc())


def _rows(statement: Select[Any]) -> list[Any]:
    return services().store.read(lambda tx: list(tx.execute(statement).all()))


def _identity(miner: str) -> str:
    return miner if miner.startswith("key:") and miner.isprintable() else decode_hotkey(miner).hex()


def _line(row: Any) -> dict[str, Any]:
    return {
        "miner": row.miner if row.miner.startswith("key:") else encode_hotkey(bytes.fromhex(row.miner)),
        "seq": row.seq,
        "prediction_id": row.prediction_id,
        "game_id": row.game_id,
        "code": row.code,
        "wager": None if row.wager is None else money_text(row.wager),
        "outcome": row.outcome,
        "accepted_odds": None if row.accepted_odds is None else odds_text(row.accepted_odds),
        "payout": None if row.payout is None else money_text(row.payout),
        "received_at": rfc3339(row.received_at),
    }


# --- files ---------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        content = file.read(FILE_MAX + 1)
    if len(content) > FILE_MAX:
        raise fail(f"{path} is larger than {FILE_MAX} bytes", 1)
    try:
        return read_json(content.decode())
    except ValueError:
        raise fail(f"{path} is no JSON", 1) from None


def _member(value: Any, name: str) -> Any:
    """The value, or the object that it holds under this name."""
    return value[name] if isinstance(value, dict) and isinstance(value.get(name), dict) else value
