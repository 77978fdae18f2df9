"""`grid-client miner outbox ...` and `grid-client miner verify`: what needs no node and no network."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grid_client.cli.printing import cell, say
from grid_client.outbox import STATES, Entry, Outbox
from grid_client.receipts import InvalidReceipt, Receipt, read_json, verify_receipt
from grid_client.signing import public_keypair

OUTBOX = Path("~/.grid-client/outbox.db")
PAGE = 500
LARGEST_FILE = 1 << 20
"""Bytes of a receipt or a prediction; a message has 16 KiB at most."""


def add_options(commands: Any) -> None:
    """The commands `outbox list`, `outbox export` and `verify`."""
    outbox = commands.add_parser("outbox", help="the predictions on this side")
    actions = outbox.add_subparsers(required=True, metavar="COMMAND")
    listed = _command(actions, "list", "a line for each prediction", list_entries)
    listed.add_argument("--json", action="store_true", help="a JSON object a line")
    exported = _command(actions, "export", "the receipts, a JSON object a line", export_receipts)
    exported.add_argument("--out", type=Path, metavar="FILE", help="default: stdout")
    exported.add_argument("--id", metavar="PREDICTION_ID", help="only this one")
    _verify_options(commands.add_parser("verify", help="check a receipt, offline"))


def _command(actions: Any, name: str, text: str, command: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command, verbose=False)
    parser.add_argument("--outbox", type=Path, default=OUTBOX, help=f"file (default {OUTBOX})")
    parser.add_argument("--node-hotkey", metavar="SS58", help="only what is for this node")
    parser.add_argument("--state", choices=STATES, action="append", help="only in this state; may be repeated")
    return parser


def _verify_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=verify, verbose=False)
    parser.add_argument("file", metavar="FILE", help="the receipt as JSON; - reads stdin")
    parser.add_argument("--node-hotkey", metavar="SS58", required=True, help="whose signature it must bear")
    parser.add_argument("--prediction", metavar="FILE", help="what it must be about, as JSON")


# --- commands


def list_entries(options: argparse.Namespace) -> int:
    for entry in _entries(options):
        say(json.dumps(entry_fields(entry)) if options.json else entry_line(entry))
    return 0


def export_receipts(options: argparse.Namespace) -> int:
    found = [entry.document for entry in _entries(options) if entry.document and _is_wanted(entry, options.id)]
    text = "".join(json.dumps(document) + "\n" for document in found)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
        say(f"saved: {options.out} ({len(found)} receipts)")
    else:
        sys.stdout.write(text)
    return 0 if found or options.id is None else 1


def verify(options: argparse.Namespace) -> int:
    """Exit 0 for a genuine receipt, 1 for any other JSON; raises what exits 2 where there is nothing to judge."""
    public_keypair(options.node_hotkey)
    receipt = read_file(options.file)
    prediction = read_file(options.prediction) if options.prediction else None
    try:
        verify_receipt(receipt, options.node_hotkey, prediction)
    except InvalidReceipt as error:
        say(f"not valid: {error.reason}")
        return 1
    say(f"valid: {receipt_line(Receipt.of(receipt))}")
    return 0


# --- what is printed


def receipt_line(receipt: Receipt) -> str:
    verdict = f"accepted at {receipt.accepted_odds}" if receipt.accepted else f"rejected, {receipt.code}"
    text = "" if receipt.accepted else f": {receipt.message}"
    return f"receipt {receipt.seq}, {receipt.prediction_id} {verdict}{text} (received {receipt.received_at})"


def entry_line(entry: Entry) -> str:
    """Tab-separated: id, state, seq, code, game, wager, when it was submitted."""
    fields = entry_fields(entry)
    names = ("prediction_id", "state", "seq", "code", "game_id", "wager", "submitted_at")
    return "\t".join(cell(fields[name]) for name in names)


def entry_fields(entry: Entry) -> dict[str, Any]:
    document, error = entry.document or {}, entry.error or {}
    return {
        "prediction_id": entry.prediction_id,
        "node_hotkey": entry.node_hotkey,
        "state": entry.state,
        "seq": document.get("seq"),
        "code": document.get("code") or error.get("code"),
        "message": document.get("message") or error.get("error"),
        "game_id": entry.prediction.get("game_id"),
        "wager": entry.prediction.get("wager"),
        "submitted_at": _moment(entry.submitted_at),
        "deadline": _moment(entry.deadline),
        "finished_at": _moment(entry.finished_at),
    }


def _moment(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# --- files


def read_file(name: str) -> Any:
    """JSON from a file, or stdin for `-`. Raises OSError, or ValueError naming what is no JSON or too large."""
    shown = "stdin" if name == "-" else name
    try:
        text = _text(name)
        if len(text) <= LARGEST_FILE:
            return read_json(text)
    except ValueError as error:
        raise ValueError(f"{shown} is no JSON: {error}") from None
    raise ValueError(f"{shown} is too large")


def _text(name: str) -> str:
    """One character too many of a file that is too large. Raises OSError, UnicodeDecodeError."""
    if name == "-":
        return sys.stdin.read(LARGEST_FILE + 1)
    with Path(name).open(encoding="utf-8") as file:
        return file.read(LARGEST_FILE + 1)


def _entries(options: argparse.Namespace) -> Iterator[Entry]:
    path = options.outbox.expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no outbox at {path}")
    outbox = Outbox(path)
    try:
        after = 0
        while page := outbox.entries(options.node_hotkey, options.state or STATES, after, PAGE):
            yield from page
            after = page[-1].number
    finally:
        outbox.close()


def _is_wanted(entry: Entry, prediction_id: str | None) -> bool:
    return prediction_id is None or entry.prediction_id == prediction_id
