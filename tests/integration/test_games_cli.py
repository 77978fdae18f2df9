"""`flask games` as an operator meets it."""

import csv
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from grid_node.cli import game_files
from grid_node.predictions.update_log import Position
from grid_node.services import Services
from grid_node.settings import Settings
from tests.command_line import CommandLine

GAME = {
    "game_id": "nfl-1",
    "team_a": "Giants",
    "team_b": "Cowboys",
    "sport": "football",
    "league": "NFL",
    "event_start_date": "2030-01-01T18:00:00Z",
    "team_a_odds": "1.80",
    "team_b_odds": "2.10",
}
DRAW = {**GAME, "game_id": "cup-1", "team_a": "Örebro", "team_b": "Malmö", "can_tie": True, "tie_odds": "3.10"}


class Operator(CommandLine):
    """Types commands on a node's machine."""

    commands = ("games",)

    def refused(self, *arguments: str) -> str:
        """What is said on stderr; nothing was changed."""
        before = self._state()
        said = super().refused(*arguments)
        assert self._state() == before
        return said

    def json_file(self, content: Any, name: str = "games.json") -> str:
        text = content if isinstance(content, str) else json.dumps(content)
        return self.file(text.encode(), name)

    def csv_file(self, *rows: list[str]) -> str:
        path = self.folder / "games.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return str(path)

    def file(self, content: bytes, name: str) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def games(self) -> dict[str, Any]:
        return dict(self.grid.predicting.games.list({})["games"])

    def _state(self) -> Any:
        return self.grid.predicting.games.list({})


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    made = Operator(tmp_path)
    yield made
    made.close()


# --- import


@pytest.mark.parametrize("content", [[GAME, DRAW], {"games": [GAME, DRAW]}])
def test_games_are_imported_from_json(operator: Operator, content: Any) -> None:
    file = operator.json_file(content)
    assert operator.done("import", file) == "new 2 changed 0 unchanged 0\n"
    assert operator.done("import", file) == "new 0 changed 0 unchanged 2\n"
    assert operator.games()["cup-1"]["tie_odds"] == "3.1000"


def test_games_are_imported_from_csv(operator: Operator) -> None:
    header = ["game_id", "team_a", "team_b", "event_start_date", "team_a_odds", "team_b_odds", "tie_odds", "can_tie"]
    header += ["active", "outcome", "sport"]
    rows = [
        ["a", "Giants", "Cowboys, Dallas", "2030-01-01T18:00:00+01:00", "1.8", "2.1", "", "", "", "", ""],
        [],
        ["b", "Örebro", "Malmö", "2030-01-01T18:00:00Z", "1.8", "2.1", "3.10", "True", "0", "TeamBWin", "football"],
    ]
    assert operator.done("import", operator.csv_file(header, *rows)) == "new 2 changed 0 unchanged 0\n"
    found = operator.games()
    assert found["a"]["team_b"] == "Cowboys, Dallas"
    assert found["a"]["event_start_date"] == "2030-01-01T17:00:00.000Z"
    assert (found["a"]["active"], found["a"]["outcome"], found["a"]["tie_odds"]) == (True, 3, None)
    assert (found["b"]["active"], found["b"]["outcome"], found["b"]["can_tie"]) == (False, 1, True)
    rows[2][6:9] = ["", "False", ""]
    assert operator.done("import", operator.csv_file(header, *rows)) == "new 0 changed 1 unchanged 1\n"
    assert operator.games()["b"]["tie_odds"] is None
    assert operator.games()["b"]["active"] is False


def test_a_table_program_may_mark_its_utf_8(operator: Operator) -> None:
    file = operator.file("\ufeffgame_id,team_a\nx,A\n".encode(), "games.csv")
    assert "row 1: Invalid game; team_b: Missing data" in operator.refused("import", file)


def test_a_dry_run_writes_nothing(operator: Operator) -> None:
    file = operator.json_file([GAME])
    assert operator.done("import", file, "--dry-run") == "new 1 changed 0 unchanged 0\n"
    assert operator.games() == {}


def test_times_without_an_offset_are_taken_as_utc_when_told(operator: Operator) -> None:
    file = operator.json_file([{**GAME, "event_start_date": "2030-01-01 18:00:00"}])
    said = operator.refused("import", file)
    assert "row 1: Invalid game; event_start_date: must be an RFC 3339 time with an offset" in said
    operator.done("import", file, "--assume-utc")
    assert operator.games()["nfl-1"]["event_start_date"] == "2030-01-01T18:00:00.000Z"


def test_bad_rows_are_listed_and_nothing_is_written(operator: Operator) -> None:
    rows = [
        GAME,
        {**GAME, "game_id": "x", "team_a_odds": "1.0"},
        {**GAME, "team_b": "Jets"},
        {**DRAW, "can_tie": False},
        7,
    ]
    assert operator.refused("import", operator.json_file(rows)).splitlines() == [
        "row 2: Invalid game; team_a_odds: must be odds above 1 and not above 1000",
        "row 3: Invalid game; game_id: is that of row 1 too",
        "row 5: Invalid game; _schema: Invalid input type.",
        "Nothing was imported: 3 rows are wrong",
    ]
    assert operator.refused("import", operator.json_file(rows[3:4])).splitlines() == [
        "row 1: Invalid game; tie_odds: must be null while can_tie is false",
        "Nothing was imported: 1 row is wrong",
    ]
    assert operator.games() == {}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("games.txt", b"[]", "The file must be named .json or .csv"),
        ("games.json", b"", "The file cannot be read: not JSON"),
        ("games.json", b'[{"team_a_odds": NaN}]', "The file cannot be read: NaN and Infinity are not JSON"),
        ("games.json", b'[{"a": 1, "a": 2}]', "The file cannot be read: duplicate key"),
        ("games.json", b"[" * 100_000, "The file cannot be read: not JSON, or nested too deep"),
        ("games.json", b'{"teams": []}', "The file holds neither a list of games"),
        ("games.json", b'{"games": {}}', "The file holds neither a list of games"),
        ("games.json", b"\xff", "The file is not UTF-8"),
        ("games.csv", b"", "The first line must name members of a game"),
        ("games.csv", b"game_id,colour\n", "each once, not colour"),
        ("games.csv", b"game_id,team_a,team_a\n", "The first line must name members of a game"),
        ("games.csv", b"team_a,team_b\n", "The first line must name members of a game"),
        ("games.csv", b"game_id,team_a\nx,A\ny\n", "Row 2 has another number of cells than the first line"),
        ("games.csv", b'game_id,team_a\nx,"A\n', "The file cannot be read: line 2"),
        ("games.csv", b"game_id,team_a\nx," + b"A" * 200_000, "The file cannot be read: line 2"),
    ],
)
def test_a_file_that_is_none_is_refused(operator: Operator, name: str, content: bytes, said: str) -> None:
    assert said in operator.refused("import", operator.file(content, name))


def test_a_file_has_a_largest_size(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(game_files, "FILE_MAX", 1024 * 1024)
    file = operator.file(b"[" + b" " * 1024 * 1024, "games.json")
    assert operator.refused("import", file) == "The file is larger than 1 MiB"


def test_more_games_than_an_import_takes_are_refused(operator: Operator) -> None:
    file = operator.json_file("[" + ",".join(["{}"] * 20_001) + "]")
    assert operator.refused("import", file) == "An import takes 20000 games at most"


def test_an_import_is_seen_by_another_process_at_its_next_look(operator: Operator, tmp_path: Path) -> None:
    log = operator.grid.predicting.log
    log.open()
    heard = threading.Event()
    other = create_app(Settings.load({}, data_dir=operator.folder, async_mode="threading"))
    grid: Services = other.extensions["grid"]
    rung: list[int] = []
    grid.predicting.log.ring = lambda: rung.append(1)
    log.follow(heard.set)
    file = operator.json_file([GAME])
    assert other.test_cli_runner().invoke(args=["games", "import", file]).exit_code == 0
    grid.bells.close()
    grid.store.close()
    assert rung == [1]
    assert log.poll()
    assert heard.is_set()
    (update,) = log.updates(Position(log.newest.epoch, 0), 10)
    assert json.loads(update.text)["updated_games"]["nfl-1"]["team_a"] == "Giants"


# --- list, close, new-epoch


def test_games_are_listed_earliest_first(operator: Operator) -> None:
    later = {**GAME, "game_id": "nfl-0", "event_start_date": "2031-01-01T18:00:00Z", "active": False}
    operator.done("import", operator.json_file([later, GAME, {**DRAW, "sport": "soccer"}]))
    assert operator.done("list").splitlines() == [
        "cup-1|2030-01-01T18:00:00.000Z|Örebro|Malmö|1.8000/2.1000/3.1000|Unfinished|active",
        "nfl-1|2030-01-01T18:00:00.000Z|Giants|Cowboys|1.8000/2.1000|Unfinished|active",
        "nfl-0|2031-01-01T18:00:00.000Z|Giants|Cowboys|1.8000/2.1000|Unfinished|inactive",
    ]
    assert operator.done("list", "--inactive").startswith("nfl-0|")
    assert operator.done("list", "--sport", "soccer").startswith("cup-1|")
    listed = json.loads(operator.done("list", "--json", "--active"))
    assert listed == [operator.games()["cup-1"], operator.games()["nfl-1"]]
    assert operator.done("import", operator.json_file(listed)) == "new 0 changed 0 unchanged 2\n"


def test_a_game_is_closed_once(operator: Operator) -> None:
    operator.done("import", operator.json_file([GAME]))
    assert operator.done("close", "nfl-1", "TeamBWin") == "Closed game: nfl-1\n"
    assert operator.games()["nfl-1"]["outcome"] == 1
    assert operator.refused("close", "nfl-1", "1") == "The game has this outcome already"
    assert operator.refused("close", "nfl-1", "Draw") == "The game has another final outcome"
    assert operator.done("close", "nfl-1", "2", "--force") == "Closed game: nfl-1\n"
    assert operator.games()["nfl-1"]["outcome"] == 2


def test_only_a_game_that_is_there_is_closed(operator: Operator) -> None:
    assert operator.refused("close", "nothing", "0") == "Game not found."
    assert "game_id: must be 1 to 64 letters" in operator.refused("close", "a/b", "0")


@pytest.mark.parametrize("outcome", ["3", "Unfinished", "won", ""])
def test_a_game_is_closed_with_a_final_outcome(operator: Operator, outcome: str) -> None:
    result = operator.app.test_cli_runner().invoke(args=["games", "close", "nfl-1", outcome])
    assert result.exit_code == 2


def test_a_new_epoch_begins_the_log_anew(operator: Operator) -> None:
    operator.done("import", operator.json_file([GAME]))
    log = operator.grid.predicting.log
    log.open()
    before = log.newest
    epoch = operator.done("new-epoch").removeprefix("New epoch: ").strip()
    assert log.newest == Position(epoch, 0)
    assert epoch != before.epoch
    assert log.resume(before).reason == "epoch_changed"
