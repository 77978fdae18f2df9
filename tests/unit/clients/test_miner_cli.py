"""`grid-client miner`: what it does without a node."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair
from grid_client.cli import main as program
from grid_client.cli.miner_outbox import entry_line
from grid_client.cli.miner_story import Story, game_row, prediction_text
from grid_client.cli.printing import say
from grid_client.cli.wallets import keypair_of
from grid_client.game_feed import GameUpdate, Position
from grid_client.outbox import Ending, Outbox
from grid_client.receipts import body_digest
from grid_client.signing import signed

NODE = Keypair.create_from_seed("0x" + "07" * 32)
MINER = Keypair.create_from_seed("0x" + "11" * 32)
EPOCH = "0123456789abcdef"
GAME = {
    "team_a": "Giants",
    "team_b": "Cowboys",
    "event_start_date": "2030-01-01T12:00:00.000Z",
    "active": True,
    "outcome": 3,
    "team_a_odds": "1.8000",
    "team_b_odds": "2.1000",
    "tie_odds": None,
}


def prediction(prediction_id: str = "p1", **members: Any) -> dict[str, Any]:
    game = {name: GAME[name] for name in ("team_a", "team_b", "team_a_odds", "team_b_odds")}
    bet = {"wager": "10.00", "predicted_outcome": 1, "predicted_odds": "2.1000"}
    return {"prediction_id": prediction_id, "game_id": "nfl-17", **game, **bet, **members}


def receipt(body: dict[str, Any], **members: Any) -> dict[str, Any]:
    message = {
        "message_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "sender_hotkey": NODE.ss58_address,
        "receiver_hotkey": MINER.ss58_address,
        "timestamp": "2026-11-20T12:00:00.006Z",
        "message_type": "confirmation",
        "prediction_id": body["prediction_id"],
        "success": True,
        "message": "Prediction accepted",
        "code": "successful",
        "body_sha256": body_digest(body),
        "received_at": "2026-11-20T12:00:00.003Z",
        "seq": 41,
        "accepted_odds": "2.1000",
        "miner_stats": {"utc_day": "2026-11-20", "wagered": "10.00", "remaining": "990.00", "accepted": 1},
        **members,
    }
    return signed(NODE, message)


def rejection(body: dict[str, Any]) -> dict[str, Any]:
    text = "Game has already started"
    message = receipt(body, success=False, code="game_started", message=text, error=text, status=422, seq=42)
    return signed(NODE, {name: value for name, value in message.items() if name not in ("accepted_odds", "signature")})


def miner(*words: object) -> int:
    return program.main(["miner", *map(str, words)])


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    file = tmp_path / "miner.seed"
    file.write_text("11" * 32)
    return file


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """One accepted, one rejected by a rule, one refused, one still on its way, and one for another node."""
    path = tmp_path / "outbox.db"
    kept = Outbox(path)
    bodies = {name: prediction(name) for name in ("p-ok", "p-late", "p-bad", "p-new")}
    for body in bodies.values():
        kept.add(NODE.ss58_address, MINER.ss58_address, body, 2e9, 1_790_000_000.0)
    kept.add("another-node", MINER.ss58_address, prediction("p-else"), 2e9, 1_790_000_000.0)
    ok, late, bad, _new, _other = kept.entries()
    endings = [
        Ending(ok, "accepted", receipt(bodies["p-ok"])),
        Ending(late, "rejected", rejection(bodies["p-late"])),
        Ending(bad, "rejected", error={"code": "missing_data", "error": "Missing prediction data"}),
    ]
    kept.finish(endings, 1_790_000_001.0)
    kept.close()
    return path


# --- submit


def to_nowhere(seed: Path, path: Path) -> list[object]:
    """A node that nothing listens for."""
    node = ["--node-url", "http://127.0.0.1:9", "--node-hotkey", NODE.ss58_address]
    return [*node, "--wallet-seed-file", seed, "--outbox", path]


def test_a_prediction_is_in_the_outbox_without_a_node(
    tmp_path: Path, seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, path = tmp_path / "p.json", tmp_path / "new" / "outbox.db"
    file.write_text(json.dumps(prediction()))

    assert miner("submit", file, *to_nowhere(seed, path)) == 0
    assert miner("submit", file, *to_nowhere(seed, path)) == 0

    assert capsys.readouterr().out.splitlines() == ["in the outbox: p1"] * 2
    kept = Outbox(path)
    (entry,) = kept.entries(NODE.ss58_address)
    kept.close()
    assert (entry.miner, entry.state, entry.prediction) == (MINER.ss58_address, "queued", prediction())


def test_another_body_under_the_same_id_is_refused(
    tmp_path: Path, seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, path = tmp_path / "1.json", tmp_path / "2.json", tmp_path / "outbox.db"
    first.write_text(json.dumps(prediction()))
    second.write_text(json.dumps(prediction(wager="99.00")))

    assert miner("submit", first, *to_nowhere(seed, path)) == 0
    assert miner("submit", second, *to_nowhere(seed, path)) == 1
    assert "conflict" in capsys.readouterr().err


def test_a_prediction_comes_from_stdin(
    tmp_path: Path, seed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "stdin"
    text.write_text(json.dumps(prediction()))
    with text.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert miner("submit", "-", *to_nowhere(seed, tmp_path / "outbox.db")) == 0

    assert "in the outbox: p1" in capsys.readouterr().out


def test_no_receipt_in_time_exits_1_and_keeps_the_prediction(
    tmp_path: Path, seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, path = tmp_path / "p.json", tmp_path / "outbox.db"
    file.write_text(json.dumps(prediction()))

    assert miner("submit", file, "--wait", "0.1", "--receipt", tmp_path / "r.json", *to_nowhere(seed, path)) == 1

    err = capsys.readouterr().err
    assert "deadline_exceeded: no receipt of p1 within 0.1 s" in err
    assert not (tmp_path / "r.json").exists()
    kept = Outbox(path)
    assert [entry.is_finished for entry in kept.entries()] == [False]
    kept.close()


@pytest.mark.parametrize(
    "text", ["", "[]", '"text"', '{"a": 1, "a": 2}', '{"a": NaN}', "\x00", "7" * (1 << 21)], ids=len
)
def test_what_is_no_prediction_exits_2_and_names_the_file(
    tmp_path: Path, seed: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "p.json"
    file.write_text(text)

    assert miner("submit", file, *to_nowhere(seed, tmp_path / "outbox.db")) == 2
    assert capsys.readouterr().err.startswith(f"grid-client: {file} ")


def test_a_prediction_that_no_node_would_take_exits_2(
    tmp_path: Path, seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, path = tmp_path / "p.json", tmp_path / "outbox.db"
    for body in ({}, prediction(wager=None), prediction("a b")):
        file.write_text(json.dumps(body))
        assert miner("submit", file, *to_nowhere(seed, path)) == 2

    empty, wager, name = capsys.readouterr().err.splitlines()
    assert empty == (
        "grid-client: invalid_prediction: a prediction needs"
        " game_id, team_a, team_b, wager, predicted_outcome, team_a_odds, team_b_odds"
    )
    assert wager.endswith("a prediction needs wager")
    assert "prediction_id must be" in name
    kept = Outbox(path)
    assert kept.entries() == []
    kept.close()


# --- who, where and how


def test_a_wallet_in_bittensors_layout_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hotkeys = tmp_path / "wallets" / "main" / "hotkeys"
    hotkeys.mkdir(parents=True)
    (hotkeys / "h1").write_text(json.dumps({"secretSeed": "0x" + "11" * 32, "ss58Address": MINER.ss58_address}))
    file, path = tmp_path / "p.json", tmp_path / "outbox.db"
    file.write_text(json.dumps(prediction()))
    node = ["--node-url", "http://127.0.0.1:9", "--node-hotkey", NODE.ss58_address, "--outbox", path]
    wallet = ["--wallet-path", tmp_path / "wallets", "--wallet-name", "main"]

    assert miner("submit", file, *node, *wallet, "--wallet-hotkey", "h1") == 0
    assert miner("submit", file, *node, *wallet) == 2  # there is no hotkey `default`
    assert "default" in capsys.readouterr().err
    kept = Outbox(path)
    assert [entry.miner for entry in kept.entries()] == [MINER.ss58_address]
    kept.close()


@pytest.mark.parametrize("name", ["../main", "..", ".", "a/b"])
def test_a_wallet_is_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    options = program._parser().parse_args(
        ["miner", "games", "--node-hotkey", "5G", "--wallet-path", str(tmp_path), "--wallet-name", name]
    )
    with pytest.raises(ValueError, match="no name of a wallet"):
        keypair_of(options)


def test_usage_errors_exit_2(
    tmp_path: Path, seed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GRID_URL", raising=False)
    monkeypatch.delenv("GRID_WORKER_API_KEY", raising=False)
    node = ["--node-hotkey", NODE.ss58_address, "--outbox", tmp_path / "outbox.db"]
    url = ["--node-url", "http://127.0.0.1:9"]

    assert miner("games", *node, *url) == 2  # no wallet and no key
    assert miner("games", *node, *url, "--wallet-seed-file", seed, "--api-key", "key-of-the-tests-0001") == 2
    assert miner("games", *node, *url, "--wallet-seed-file", seed, "--wallet-name", "main") == 2
    assert miner("games", *node, *url, "--wallet-seed-file", tmp_path / "absent") == 2
    assert miner("games", *node, "--wallet-seed-file", seed) == 2  # no URL
    assert miner("submit", "p.json", "--receipt", "r.json", *node, *url, "--wallet-seed-file", seed) == 2  # no --wait
    for wrong in (
        ["--websocket_enabled", "no"],
        ["--websocket_heartbeat_interval", "0"],
        ["--ack-timeout", "nan"],
        ["--http-fallback-after", "-1"],
    ):
        with pytest.raises(SystemExit) as end:
            miner("run", *node, *url, *wrong)
        assert end.value.code == 2
    with pytest.raises(SystemExit) as end:
        miner("run", *url)  # whom it signs for is never guessed
    assert end.value.code == 2
    assert "key-of-the-tests" not in capsys.readouterr().err


@pytest.mark.parametrize("word", ["True", "False", "1", "0", "false"])
def test_the_flags_of_the_seed_are_taken_with_an_equals_sign(word: str) -> None:
    options = program._parser().parse_args(
        [
            *("miner", "run", "--node-hotkey", "5G", f"--websocket_enabled={word}"),
            *("--websocket_heartbeat_interval=60", "--websocket_reconnect_base_interval=5"),
            "--websocket_max_reconnect_interval=300",
        ]
    )

    assert options.websocket_enabled is (word in ("True", "1"))
    assert options.websocket_heartbeat_interval == 60.0
    assert options.websocket_reconnect_base_interval == 5.0
    assert options.websocket_max_reconnect_interval == 300.0


@pytest.mark.parametrize("content", ["", "nonsense", "{", "{}", "zz" * 32])
def test_a_file_that_holds_no_key_exits_2(
    tmp_path: Path, seed: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seed.write_text(content)

    assert miner("games", *to_nowhere(seed, tmp_path / "o.db")) == 2
    assert capsys.readouterr().err.startswith("grid-client: ")


def test_a_node_hotkey_that_is_none_exits_2(
    tmp_path: Path, seed: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    url = ["--node-url", "http://127.0.0.1:9", "--outbox", tmp_path / "o.db", "--wallet-seed-file", seed]

    assert miner("games", "--node-hotkey", "5nonsense", *url) == 2
    assert miner("verify", files[0], "--node-hotkey", "5nonsense") == 2
    told = "grid-client: bad_node_hotkey: '5nonsense' is no hotkey"
    assert capsys.readouterr().err.splitlines() == [told, told]


def test_another_machine_is_not_spoken_to_in_the_clear(
    tmp_path: Path, seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--node-hotkey", NODE.ss58_address, "--wallet-seed-file", seed, "--outbox", tmp_path / "o.db"]

    assert miner("games", "--node-url", "http://192.0.2.1", *options) == 2
    assert "insecure_url" in capsys.readouterr().err


# --- the outbox


def test_the_outbox_is_listed_a_line_a_prediction(outbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert miner("outbox", "list", "--outbox", outbox, "--node-hotkey", NODE.ss58_address) == 0

    at = "2026-09-21T14:13:20Z"
    assert capsys.readouterr().out.splitlines() == [
        f"p-ok\taccepted\t41\tsuccessful\tnfl-17\t10.00\t{at}",
        f"p-late\trejected\t42\tgame_started\tnfl-17\t10.00\t{at}",
        f"p-bad\trejected\t-\tmissing_data\tnfl-17\t10.00\t{at}",
        f"p-new\tqueued\t-\t-\tnfl-17\t10.00\t{at}",
    ]


def test_the_outbox_is_listed_by_state_and_as_json(outbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert miner("outbox", "list", "--outbox", outbox, "--state", "queued", "--json") == 0

    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["prediction_id"], one["node_hotkey"]) for one in found] == [
        ("p-new", NODE.ss58_address),
        ("p-else", "another-node"),
    ]


def test_an_entry_with_strange_values_is_one_line(tmp_path: Path) -> None:
    kept = Outbox(tmp_path / "outbox.db")
    kept.add(NODE.ss58_address, MINER.ss58_address, {"prediction_id": "p", "game_id": "a\tb\nc"}, 2e9, 0.0)
    (entry,) = kept.entries()
    kept.close()

    assert entry_line(entry) == "p\tqueued\t-\t-\ta b c\t-\t1970-01-01T00:00:00Z"


def test_exported_receipts_pass_the_check(outbox: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "receipts.jsonl"

    assert miner("outbox", "export", "--outbox", outbox, "--out", out) == 0
    assert miner("outbox", "export", "--outbox", outbox, "--id", "p-late") == 0
    assert miner("outbox", "export", "--outbox", outbox, "--id", "p-new") == 1

    saved, one = capsys.readouterr().out.splitlines()
    lines = out.read_text().splitlines()
    assert saved == f"saved: {out} (2 receipts)"
    assert [json.loads(line) for line in lines] == [receipt_of(outbox, "p-ok"), receipt_of(outbox, "p-late")]
    assert json.loads(one) == receipt_of(outbox, "p-late")
    for number, line in enumerate(lines):
        file = tmp_path / f"{number}.json"
        file.write_text(line)
        assert miner("verify", file, "--node-hotkey", NODE.ss58_address) == 0


def receipt_of(outbox: Path, prediction_id: str) -> Any:
    kept = Outbox(outbox)
    entry = kept.get(NODE.ss58_address, prediction_id)
    kept.close()
    assert entry is not None
    return entry.document


def test_a_missing_outbox_is_said_and_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "absent.db"

    assert miner("outbox", "list", "--outbox", path) == 2
    assert str(path) in capsys.readouterr().err
    assert not path.exists()


def test_the_standard_outbox_is_nobody_elses_business(
    tmp_path: Path, seed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "p.json"
    file.write_text(json.dumps(prediction()))
    node = ["--node-url", "http://127.0.0.1:9", "--node-hotkey", NODE.ss58_address, "--wallet-seed-file", seed]

    assert miner("submit", file, *node) == 0
    assert os.stat(tmp_path / ".grid-client" / "outbox.db").st_mode & 0o077 == 0


# --- verify


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A receipt and what it is about."""
    body = prediction("p-ok")
    (tmp_path / "receipt.json").write_text(json.dumps(receipt(body), indent=2))
    (tmp_path / "prediction.json").write_text(json.dumps(body))
    return tmp_path / "receipt.json", tmp_path / "prediction.json"


def test_a_genuine_receipt_is_told(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file, body = files

    assert miner("verify", file, "--node-hotkey", NODE.ss58_address) == 0
    assert miner("verify", file, "--node-hotkey", NODE.ss58_address, "--prediction", body) == 0

    told = "valid: receipt 41, p-ok accepted at 2.1000 (received 2026-11-20T12:00:00.003Z)"
    assert capsys.readouterr().out.splitlines() == [told, told]


def test_a_receipt_that_is_not_genuine_exits_1(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, body = files
    changed, other = tmp_path / "changed.json", tmp_path / "other.json"
    changed.write_text(file.read_text().replace('"seq": 41', '"seq": 40'))
    other.write_text(body.read_text().replace("10.00", "10.01"))

    assert miner("verify", changed, "--node-hotkey", NODE.ss58_address) == 1
    assert miner("verify", file, "--node-hotkey", MINER.ss58_address) == 1
    assert miner("verify", file, "--node-hotkey", NODE.ss58_address, "--prediction", other) == 1

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("not valid: ") for line in lines)


@pytest.mark.parametrize("text", ["[]", "{}", "null"])
def test_what_is_no_receipt_exits_1(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "receipt.json"
    file.write_text(text)

    assert miner("verify", file, "--node-hotkey", NODE.ss58_address) == 1
    assert capsys.readouterr().out.startswith("not valid: ")


@pytest.mark.parametrize("content", [b"", b"nonsense", b'{"seq": 1, "seq": 2}', b"[" * 100_000, b"\xff\xfe{}"], ids=len)
def test_a_file_that_is_no_json_exits_2(
    files: tuple[Path, Path], tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(content)

    assert miner("verify", file, "--node-hotkey", NODE.ss58_address) == 2
    assert miner("verify", files[0], "--node-hotkey", NODE.ss58_address, "--prediction", file) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.startswith(f"grid-client: {file} is no JSON") for line in err.splitlines())


def test_a_receipt_that_is_too_large_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "receipt.json"
    file.write_text("1" * (1 << 21))

    assert miner("verify", file, "--node-hotkey", NODE.ss58_address) == 2
    assert capsys.readouterr().err == f"grid-client: {file} is too large\n"


def test_a_receipt_that_is_not_there_exits_2(tmp_path: Path) -> None:
    assert miner("verify", tmp_path / "absent.json", "--node-hotkey", NODE.ss58_address) == 2


# --- the story


def test_the_story_says_what_a_delta_changed() -> None:
    told: list[str] = []
    story = Story(told.append)
    new = {**GAME, "team_a": "Jets", "team_b": "Bills"}

    story.updated(GameUpdate("snapshot", Position(EPOCH, 7), {"g1": GAME}, {"g1": GAME}))
    for seq, changes in enumerate(
        (
            {"g1": {"team_a_odds": "1.9000", "tie_odds": "3.5000", "last_update_date": "2030-01-01T00:00:00.000Z"}},
            {"g2": new},
            {"g1": {"team_a_odds": "2.0000"}, "g2": {"outcome": 1}},
        ),
        start=8,
    ):
        story.updated(GameUpdate("delta", Position(EPOCH, seq), {}, changes))

    assert told == [
        "games: a snapshot of 1 (seq 7)",
        "games: g1 team_a_odds 1.8000 -> 1.9000, tie_odds none -> 3.5000 (seq 8)",
        "games: g2 is new, Jets v Bills (seq 9)",
        "games: g1 team_a_odds 1.9000 -> 2.0000 (seq 10)",
        "games: g2 outcome unfinished -> team B (seq 10)",
    ]


def test_the_story_says_how_predictions_end(outbox: Path) -> None:
    told: list[str] = []
    kept = Outbox(outbox)

    Story(told.append).finished(entry for entry in kept.entries(NODE.ss58_address) if entry.is_finished)

    kept.close()
    assert told == [
        "receipt 41: p-ok accepted at 2.1000",
        "receipt 42: p-late rejected: Game has already started",
        "rejected: p-bad: missing_data: Missing prediction data",
    ]


def test_foreign_text_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("\x1b[2Jgames:\tone\ntwo\x9b31m\u202e")

    assert capsys.readouterr().out == " [2Jgames:\tone\ntwo 31m \n"
    assert game_row("g\t1", {"team_a": "A\nB"}).split("\t")[::2] == ["g 1", "A B v None", "-", "none"]


def test_a_game_is_a_row() -> None:
    row = game_row("nfl-17", GAME)

    assert row == "nfl-17\t2030-01-01T12:00:00.000Z\tGiants v Cowboys\t1.8000\t2.1000\t-\tunfinished\tactive"


def test_a_prediction_is_told_with_its_payout() -> None:
    answer = {"prediction_id": "p-ok", "state": "settled", "receipt": receipt(prediction("p-ok"))}

    assert prediction_text({**answer, "settlement": {"outcome": 1, "payout": "21.00"}}).splitlines() == [
        "p-ok: settled, receipt 41",
        "  Prediction accepted (successful) at 2026-11-20T12:00:00.003Z",
        "  outcome team B, payout 21.00",
    ]
    assert len(prediction_text({**answer, "settlement": None}).splitlines()) == 2


# --- a node that lies


@pytest.fixture
def liar() -> Iterator[tuple[str, dict[str, Any]]]:
    """An address that answers what a test says, by path."""
    answers: dict[str, Any] = {}

    class Liar(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answers[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's output is not a server log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", answers
        finally:
            server.shutdown()
            thread.join()


def test_a_receipt_that_the_node_did_not_sign_is_not_shown(
    liar: tuple[str, dict[str, Any]], tmp_path: Path, seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, answers = liar
    options = ["--node-url", url, *to_nowhere(seed, tmp_path / "o.db")[2:]]
    genuine = receipt(prediction("p-ok"))
    answers["/predictions/p-ok"] = {"success": True, "prediction_id": "p-ok", "state": "settled", "receipt": genuine}
    assert miner("status", "p-ok", *options) == 0
    capsys.readouterr()

    for forged in ({**genuine, "accepted_odds": "9.9000"}, receipt(prediction("p-else")), [], None, "text"):
        answers["/predictions/p-ok"]["receipt"] = forged
        assert miner("status", "p-ok", *options) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "invalid_receipt" in err


@pytest.mark.parametrize("found", [None, [], {"g": 1}, "text"])
def test_games_that_are_none_exit_1(
    liar: tuple[str, dict[str, Any]], found: object, tmp_path: Path, seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, answers = liar
    answers["/games"] = {"success": True, "games": found}

    assert miner("games", "--node-url", url, *to_nowhere(seed, tmp_path / "o.db")[2:]) == 1
    assert "bad_answer" in capsys.readouterr().err
