"""Files of games: JSON, a list or {"games": [...]}, or CSV with the names of the members in its first line."""

import csv
import io
from pathlib import Path
from typing import Any

from grid_node.errors import InvalidGame
from grid_node.predictions.game_rows import MEMBERS
from grid_node.settings import MIB
from grid_node.wire import strict_json

FILE_MAX = 32 * MIB


def read_games(path: Path) -> list[Any]:
    """Rows as JSON data, not yet looked at one by one. Raises InvalidGame for what is no such file."""
    reader = {".json": _from_json, ".csv": _from_csv}.get(path.suffix.lower())
    if reader is None:
        raise InvalidGame("The file must be named .json or .csv")
    with path.open("rb") as file:
        content = file.read(FILE_MAX + 1)
    if len(content) > FILE_MAX:
        raise InvalidGame(f"The file is larger than {FILE_MAX // MIB} MiB")
    try:
        return reader(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidGame("The file is not UTF-8") from None


def _from_json(text: str) -> list[Any]:
    try:
        value = strict_json.loads(text)
    except strict_json.InvalidJSON as error:
        raise InvalidGame(f"The file cannot be read: {error}") from None
    if isinstance(value, dict):
        value = value.get("games")
    if not isinstance(value, list):
        raise InvalidGame('The file holds neither a list of games nor {"games": [...]}')
    return value


def _from_csv(text: str) -> list[Any]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header)
        return [_row(header, cells, number) for number, cells in enumerate(filter(None, reader), 1)]
    except csv.Error as error:
        raise InvalidGame(f"The file cannot be read: line {reader.line_num}: {error}") from None


def _check_header(header: list[str]) -> None:
    unknown = [name for name in header if name not in MEMBERS]
    if unknown or len(set(header)) != len(header) or "game_id" not in header:
        wrong = f", not {', '.join(unknown)}" if unknown else ""
        raise InvalidGame(f"The first line must name members of a game, game_id among them, each once{wrong}")


def _row(header: list[str], cells: list[str], number: int) -> dict[str, Any]:
    """An empty cell leaves its member out; without tie odds there is no tie."""
    if len(cells) != len(header):
        raise InvalidGame(f"Row {number} has another number of cells than the first line")
    row: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=True) if cell != ""}
    if "tie_odds" in header:
        row.setdefault("tie_odds", None)
    return row
