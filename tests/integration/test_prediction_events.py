"""The namespace `/predictions` against a real server: who comes in, what is answered, and how a socket ends."""

import contextlib
import json
import re
import sqlite3
import zlib

import httpx
import pytest
import socketio

from grid_node.identity.hotkeys import check_message
from grid_node.wire.frames import CONTINUATION, TEXT
from tests.integration.wire.harness import client_frame
from tests.miners import (
    NAMESPACE,
    Bookmaker,
    Miner,
    RawMiner,
    allow,
    allow_list,
    authenticate,
    base,
    game,
    new_keypair,
    prediction_message,
    public_key,
    put_games,
    stored,
)
from tests.nodes import running_node, until

WINDOW = 4
"""Unacknowledged updates of the strict node, and its messages in flight."""
HEARTBEAT = 0.5


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node with the limits that it has by default."""
    with running_node(tmp_path_factory.mktemp("miners"), prediction_rate=10_000, prediction_burst=10_000) as live:
        put_games(live)
        yield live


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A node whose limits are met soon, on its own machine's clock."""
    limits = {
        "websocket_auth_timeout": 2,
        "websocket_send_window": WINDOW,
        "websocket_slow_timeout": 2,
        "websocket_max_connections": 6,
        "websocket_max_pending_per_ip": 3,
        "prediction_max_in_flight": WINDOW,
        "games_compress_min_bytes": 600,
    }
    with running_node(tmp_path_factory.mktemp("strict"), **limits) as live:
        put_games(live)
        yield live


@pytest.fixture(scope="module")
def brisk(tmp_path_factory):
    """A node that gives nobody much time."""
    times = {"websocket_heartbeat_interval": HEARTBEAT, "websocket_connection_timeout": 2.5}
    with running_node(tmp_path_factory.mktemp("brisk"), **times) as live:
        put_games(live)
        yield live


@pytest.fixture
def opened():
    """Ends every connection that a test opened."""
    with contextlib.ExitStack() as stack:
        yield lambda connection: stack.enter_context(contextlib.closing(connection))


@pytest.fixture
def raw(opened):
    """A new miner behind a bare WebSocket, let in unless told otherwise."""

    def connect(node, *, enter=True, keypair=None, **introduction):
        if keypair is None:
            keypair = new_keypair()
            allow(node, keypair)
        miner = opened(RawMiner(node, keypair))
        if enter:
            miner.welcome = miner.enter(**introduction)
            assert miner.welcome["success"], miner.welcome
        return miner

    return connect


def position(update):
    return {"epoch": update["epoch"], "seq": update["seq"]}


def acknowledge(miner, update):
    assert miner.call("update_ack", position(update)) == {"success": True}


def append(node, watcher, count):
    """So many updates by another process; returns their odds once the node, asked by `watcher`, has seen them."""
    bookmaker = Bookmaker(node)
    odds = bookmaker.append(count)
    newest = bookmaker.store.read(bookmaker.log.position)
    until(lambda: watcher.call("heartbeat", base(watcher.keypair, "heartbeat"))["seq"] == newest.seq)
    return odds


def frames_until_answer(miner, number):
    """The names of what came before and after the answer to an event, up to the next push."""
    seen = []
    while True:
        text = miner.wire.frame()[1].decode()
        if match := re.match(rf"43{NAMESPACE},{number}(\[.*)", text, re.DOTALL):
            seen.append(("ack", json.loads(match[1])[0]))
        elif match := re.match(rf"42{NAMESPACE},(\[.*)", text, re.DOTALL):
            seen.append(tuple(json.loads(match[1])))
            return seen


# --- coming in --------------------------------------------------------------------------------------------------


def test_a_miner_that_proves_its_hotkey_is_told_the_terms_in_a_signed_message(node, raw):
    miner = raw(node)
    welcome = miner.welcome
    check_message(public_key(_node_keypair(node)), welcome)
    assert (welcome["message_type"], welcome["receiver_hotkey"]) == ("authenticated", miner.keypair.ss58_address)
    assert (welcome["heartbeat_interval"], welcome["connection_timeout"]) == (60, 300)
    assert (welcome["max_in_flight"], welcome["max_message_bytes"], welcome["max_batch"]) == (64, 16384, 64)
    assert (welcome["last_seq"], welcome["uid"], welcome["recovered"]) == (0, None, None)
    assert not [value for value in welcome.values() if isinstance(value, float)]


def _node_keypair(node):
    class Hotkey:
        public_key = bytes.fromhex(json.loads((node.data / "node_hotkey").read_text())["publicKey"][2:])

    return Hotkey


def test_the_answer_comes_first_and_then_the_snapshot(node, raw):
    miner = raw(node, enter=False)
    number = miner.send("authenticate", authenticate(miner.keypair, miner.challenge))
    (first, welcome), (second, snapshot) = frames_until_answer(miner, number)
    assert (first, second) == ("ack", "game_update")
    assert (snapshot["kind"], snapshot["part"], snapshot["parts"]) == ("snapshot", 1, 1)
    assert snapshot["seq"] >= welcome["seq"]
    assert "nfl-17" in snapshot["updated_games"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"nonce": "0" * 64}, "auth_failed"),
        ({"nonce": "x"}, "invalid_message"),
        ({"message_type": "prediction"}, "invalid_message"),
        ({"timestamp": "2020-01-01T00:00:00Z"}, "stale_timestamp"),
        ({"receiver_hotkey": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"}, "wrong_receiver"),
        ({"sender_hotkey": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"}, "bad_signature"),
    ],
)
def test_a_failed_authentication_is_answered_and_ends_the_connection(node, raw, changes, code):
    miner = raw(node, enter=False)
    answer = miner.enter(**changes)
    assert (answer["success"], answer["code"]) == (False, code)
    assert miner.wait_for("closing")["code"] == 4401
    miner.read_to_the_end()


def test_an_answer_to_another_challenge_is_worth_nothing(node, raw):
    first, second = raw(node, enter=False), raw(node, enter=False)
    captured = authenticate(first.keypair, first.challenge)
    assert second.call("authenticate", captured)["code"] == "auth_failed"
    assert second.wait_for("closing")["code"] == 4401


def test_an_unregistered_hotkey_is_turned_away(node, raw):
    miner = raw(node, enter=False, keypair=new_keypair())
    answer = miner.enter()
    assert (answer["status"], answer["code"]) == (403, "not_registered")
    closing = miner.wait_for("closing")
    assert (closing["code"], closing["reason"], closing["retry_after"]) == (4403, "not_registered", 3600)
    miner.read_to_the_end()


def test_a_blacklisted_hotkey_is_turned_away(node, raw):
    miner = raw(node, enter=False)
    allow_list(node).blacklist(public_key(miner.keypair))
    assert miner.enter()["code"] == "blacklisted"
    assert miner.wait_for("closing")["code"] == 4404
    miner.read_to_the_end()


def test_before_it_has_authenticated_a_socket_may_do_nothing_else(node, raw):
    miner = raw(node, enter=False)
    for event in ("prediction", "prediction_status", "games", "resume", "update_ack", "heartbeat", "no_such_event"):
        answer = miner.call(event, {})
        assert (answer["status"], answer["code"]) == (401, "not_authenticated")
    assert miner.enter()["success"]


def test_it_authenticates_once(node, raw):
    miner = raw(node)
    answer = miner.enter()
    assert (answer["status"], answer["code"]) == (409, "already_authenticated")
    assert miner.predict()["success"]


def test_who_does_not_authenticate_in_time_is_cut(strict, raw):
    silent = raw(strict, enter=False)
    assert silent.challenge["expires_in"] == 2
    assert silent.wait_for("closing")["code"] == 4402
    silent.read_to_the_end()


def test_one_address_may_not_hold_many_pending_sockets(strict, raw):
    held = [raw(strict, enter=False) for _ in range(3)]
    assert _refusal(strict)["code"] == "server_full"
    held[0].enter()
    raw(strict, enter=False)


def test_a_full_node_refuses_the_next_socket(strict, raw):
    until(lambda: _counts(strict)["connections"] == 0)
    for _ in range(6):
        raw(strict)
    refusal = _refusal(strict)
    assert (refusal["status"], refusal["code"], refusal["success"]) == (503, "server_full", False)
    assert refusal["retry_after"] > 0


def _refusal(node):
    client, told = socketio.Client(reconnection=False), []
    client.on("connect_error", told.append, namespace=NAMESPACE)
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(node.url, namespaces=[NAMESPACE], transports=["websocket"], wait_timeout=10)
    client.shutdown()
    return told[0]["data"]


def _counts(node):
    return httpx.get(f"{node.url}/ws/health").json()


def test_an_api_key_of_a_private_grid_comes_in_and_its_removal_ends_it(node, raw):
    key = node.add_key("miner", ["worker"])
    miner = raw(node, enter=False)
    welcome = miner.call("authenticate", {"api_key": key})
    assert welcome["success"], welcome
    assert welcome["receiver_hotkey"].startswith("key:")
    check_message(public_key(_node_keypair(node)), welcome)
    message = {**base(miner.keypair, "prediction"), "receiver_hotkey": miner.node_hotkey}
    message |= {"sender_hotkey": welcome["receiver_hotkey"], "prediction": _body(miner)}
    receipt = miner.call("prediction", message)
    assert receipt["success"], receipt
    check_message(public_key(_node_keypair(node)), receipt)
    node.keys.remove(key)
    assert miner.wait_for("closing")["code"] == 4401
    miner.read_to_the_end()


def _body(miner, **members):
    return prediction_message(miner.keypair, miner.node_hotkey, **members)["prediction"]


@pytest.mark.parametrize("scope", ["client", "admin"])
def test_an_api_key_without_the_scope_is_turned_away(node, raw, scope):
    miner = raw(node, enter=False)
    assert miner.call("authenticate", {"api_key": node.add_key("other", [scope])})["code"] == "forbidden"
    assert miner.wait_for("closing")["code"] == 4401


# --- predictions ------------------------------------------------------------------------------------------------


def test_predictions_are_taken_up_in_the_order_in_which_they_came(node, raw):
    miner = raw(node)
    numbers = [miner.send("prediction", prediction_message(miner.keypair, miner.node_hotkey)) for _ in range(30)]
    assert [miner.answer_to(number)["seq"] for number in numbers] == list(range(1, 31))


def test_a_prediction_is_looked_up_by_its_own_miner_alone(node, raw):
    miner, other = raw(node), raw(node)
    receipt = miner.predict()
    asked = {"prediction_id": receipt["prediction_id"]}
    assert miner.call("prediction_status", asked)["receipt"] == receipt
    assert other.call("prediction_status", asked)["code"] == "prediction_not_found"
    assert miner.call("prediction_status", {})["fields"].keys() == {"prediction_id"}


def test_the_games_are_given_with_their_place(node, raw):
    answer = raw(node).call("games", {"sport": "football"})
    assert answer["games"]["nfl-17"]["team_a"] == "Giants"
    assert answer["seq"] > 0


def test_another_miners_message_is_a_mismatch(node, raw):
    miner, other = raw(node), new_keypair()
    answer = miner.call("prediction", prediction_message(other, miner.node_hotkey))
    assert (answer["status"], answer["code"]) == (403, "sender_mismatch")


@contextlib.contextmanager
def no_commits(node):
    """Nothing can be written to the node's database inside the block."""
    with contextlib.closing(sqlite3.connect(node.data / "grid.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_more_messages_than_may_be_in_flight_are_refused_and_the_others_answered(strict, raw):
    miner = raw(strict)
    with no_commits(strict):
        numbers = [_send_prediction(miner) for _ in range(WINDOW + 1)]
        refused = miner.answer_to(numbers.pop())
    assert (refused["status"], refused["code"], refused["limit"]) == (429, "too_many_in_flight", WINDOW)
    assert [miner.answer_to(number)["seq"] for number in numbers] == [1, 2, 3, 4]
    assert miner.predict()["seq"] == 5


def test_who_sends_on_although_nothing_is_answered_is_cut(strict, raw):
    miner = raw(strict)
    with no_commits(strict):
        numbers = [_send_prediction(miner) for _ in range(3 * WINDOW)]
        refusals = [miner.answer_to(number)["code"] for number in numbers[WINDOW:]]
        assert refusals == ["too_many_in_flight"] * (2 * WINDOW)
        assert miner.wait_for("closing")["code"] == 4429
        miner.read_to_the_end()


def _send_prediction(miner):
    return miner.send("prediction", prediction_message(miner.keypair, miner.node_hotkey))


def test_twenty_malformed_messages_in_a_minute_end_the_connection(node, raw):
    miner = raw(node)
    answers = [miner.call("prediction", {"prediction": {}}) for _ in range(10)]
    answers += [miner.call("resume", {"epoch": "x", "seq": -1}) for _ in range(5)]
    answers += [miner.call("heartbeat", {}) for _ in range(4)]
    assert miner.predict()["success"]
    answers.append(miner.call("prediction", [1, 2]))
    assert {answer["code"] for answer in answers} == {"invalid_message"}
    assert all(answer["fields"] for answer in answers)
    assert miner.wait_for("closing")["code"] == 4429
    miner.read_to_the_end()


def test_unknown_events_and_extra_arguments_are_answered(node, raw):
    miner = raw(node)
    assert miner.call("no_such_event", {})["code"] == "unknown_event"
    miner.wire.send(f'42{NAMESPACE},77["games",{{}},{{}}]')
    assert miner.answer_to(77)["code"] == "invalid_message"


def test_an_event_above_the_limit_of_a_batch_is_answered(node, raw):
    miner = raw(node)
    answer = miner.call("prediction", {"messages": ["x" * 262144]})
    assert (answer["status"], answer["code"], answer["limit"]) == (413, "payload_too_large", 262144)
    assert miner.predict()["success"]


def test_more_than_the_transport_takes_ends_the_connection_with_its_reason(node, raw):
    miner, stranger = raw(node), raw(node, enter=False)
    for peer, size in ((miner, 1_100_000), (stranger, 70_000)):
        peer.send("prediction", {"messages": ["x" * size]})
        assert peer.wait_for("closing")["code"] == 4413
        peer.read_to_the_end()


def test_a_message_in_fragments_is_no_larger_than_a_whole_one(node, raw):
    miner = raw(node)
    head = f'42{NAMESPACE},9["prediction",{{"messages":["'.encode()
    miner.wire.sock.sendall(client_frame(TEXT, head, final=False))
    part = client_frame(CONTINUATION, b"x" * 100_000, final=False)
    with contextlib.suppress(OSError):  # it may be cut while we send
        for _ in range(12):
            miner.wire.sock.sendall(part)
    assert miner.wait_for("closing")["code"] == 4413


# --- one miner, one socket --------------------------------------------------------------------------------------


def test_a_newer_socket_replaces_the_older_one_and_stays(node, raw):
    keypair = new_keypair()
    allow(node, keypair)
    older = raw(node, keypair=keypair)
    for number in range(1, 21):
        newer = raw(node, keypair=keypair)
        assert older.wait_for("closing")["code"] == 4409
        older.read_to_the_end()
        assert newer.predict()["seq"] == number
        older = newer


def test_a_miner_is_cut_when_it_is_removed_or_blacklisted(node, raw):
    removed, listed, other = raw(node), raw(node), raw(node)
    allow_list(node).disallow(public_key(removed.keypair))
    assert removed.wait_for("closing")["code"] == 4405
    allow_list(node).blacklist(public_key(listed.keypair))
    assert listed.wait_for("closing")["code"] == 4404
    for miner in (removed, listed):
        miner.read_to_the_end()
    assert other.predict()["success"]


# --- games ------------------------------------------------------------------------------------------------------


def test_every_miner_gets_the_updates_of_another_process_in_order(node, raw):
    miners = [raw(node) for _ in range(3)]
    begun = [miner.wait_for("game_update")["seq"] for miner in miners]
    odds = Bookmaker(node).append(10)
    for miner, seq in zip(miners, begun, strict=True):
        updates = [miner.wait_for("game_update", 2 + number) for number in range(10)]
        assert [update["seq"] for update in updates] == list(range(seq + 1, seq + 11))
        assert [update["updated_games"]["nfl-17"]["team_b_odds"] for update in updates] == odds
        check_message(public_key(_node_keypair(node)), updates[0])


def test_who_comes_back_with_its_position_gets_what_it_missed_and_no_snapshot(node, raw):
    first, other = raw(node), raw(node)
    append(node, other, 1)
    last = first.wait_for("game_update", 2)
    first.close()
    append(node, other, 40)
    second = raw(node, keypair=first.keypair, position=position(last))
    assert (second.welcome["recovered"], second.welcome["seq"]) == (True, last["seq"] + 40)
    seqs = [second.wait_for("game_update", 1 + number)["seq"] for number in range(40)]
    assert seqs == list(range(last["seq"] + 1, last["seq"] + 41))


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"epoch": "0123456789abcdef"}, "epoch_changed"), ({"seq": 10**9}, "ahead"), ({"seq": 0}, "too_many")],
)
def test_a_hole_that_cannot_be_filled_is_said_and_a_snapshot_follows(node, raw, change, reason):
    miner = raw(node)
    append(node, miner, 501)
    here = position(miner.call("games", {}))
    acknowledge(miner, here)
    number = miner.send("resume", {**here, **change})
    (first, answer), (second, update) = frames_until_answer(miner, number)
    assert (first, answer["success"], answer["recovered"], answer["reason"]) == ("ack", True, False, reason)
    assert (second, update["kind"]) == ("game_update", "snapshot")
    again = raw(node, position={**here, **change})
    assert again.welcome["recovered"] is False
    assert again.wait_for("game_update")["kind"] == "snapshot"


def test_resuming_on_an_open_socket_answers_first_and_repeats_what_is_asked_for(node, raw):
    miner = raw(node)
    append(node, miner, 1)
    here = miner.wait_for("game_update", 2)
    append(node, miner, 5)
    miner.wait_for("game_update", 7)
    number = miner.send("resume", position(here))
    (first, answer), (second, update) = frames_until_answer(miner, number)
    assert (first, answer["recovered"], answer["replayed"]) == ("ack", True, 5)
    assert (second, update["seq"]) == ("game_update", here["seq"] + 1)
    miner.wait_for("game_update", 11)
    assert [body["seq"] for _, body in miner.pushed[-4:]] == [here["seq"] + 2 + n for n in range(4)]


def test_joining_while_games_change_leaves_no_gap_and_nothing_twice(node, raw):
    bookmaker, readers = Bookmaker(node), []
    bookmaker.append(20)
    for _ in range(10):
        readers.append(raw(node))
        bookmaker.append(3)
    newest = bookmaker.store.read(bookmaker.log.position).seq
    for reader in readers:
        seqs = [reader.wait_for("game_update")["seq"]]
        while seqs[-1] < newest:
            seqs.append(reader.wait_for("game_update", len(seqs) + 1)["seq"])
        assert seqs == list(range(seqs[0], newest + 1))


def test_large_updates_are_compressed_for_those_who_take_that(strict, opened, raw):
    plain = raw(strict)
    wanted = plain.wait_for("game_update")
    packed = raw(strict, enter=False)
    number = packed.send("authenticate", authenticate(packed.keypair, packed.challenge, compression=["zlib", "br"]))
    texts, attachment = [], b""
    while not attachment:
        opcode, data = packed.wire.frame()
        if opcode == 2:
            attachment = data
        else:
            texts.append(data.decode())
    head = json.loads(texts[-1].removeprefix(f"451-{NAMESPACE},"))
    raw_text = zlib.decompress(attachment)
    form = {"message_type": "game_update", "encoding": "zlib", "raw_size": len(raw_text)}
    assert head == ["game_update", {**form, "data": {"_placeholder": True, "num": 0}}]
    assert json.loads(raw_text) == wanted
    assert texts[0].startswith(f"43{NAMESPACE},{number}")
    odds = Bookmaker(strict).append(1)
    assert packed.wait_for("game_update")["updated_games"] == {"nfl-17": {"team_b_odds": odds[0]}}


def test_a_reader_that_acknowledges_nothing_is_cut_and_the_others_go_on(strict, raw):
    deaf, other = raw(strict), raw(strict)
    acknowledge(other, other.wait_for("game_update"))
    Bookmaker(strict).append(WINDOW + 2)
    for number in range(WINDOW + 2):
        acknowledge(other, other.wait_for("game_update", 2 + number))
    assert deaf.wait_for("closing")["code"] == 4430
    deaf.read_to_the_end()
    assert len([name for name, _ in deaf.pushed if name == "game_update"]) == WINDOW
    assert other.predict()["success"]


def test_a_peer_that_reads_nothing_delays_nobody(node, raw):
    other, stuck = raw(node), raw(node)
    put_games(node, *[game(f"large-{number}", team_a="A" * 190) for number in range(450)])
    for _ in range(40):
        stuck.send("games", {})  # some 9 MB in all
    append(node, other, 3)
    assert other.predict()["success"]


# --- life -------------------------------------------------------------------------------------------------------


def test_the_node_sends_heartbeats_and_answers_those_of_the_miner(brisk, raw):
    miner = raw(brisk)
    here = miner.wait_for("game_update")
    sent = miner.wait_for("heartbeat", 2)
    answer = miner.call("heartbeat", base(miner.keypair, "heartbeat"))
    for message in (sent, answer):
        assert message.keys() == {"message_id", "sender_hotkey", "timestamp", "message_type", "epoch", "seq"}
        assert (message["message_type"], message["sender_hotkey"]) == ("heartbeat", miner.node_hotkey)
        assert position(message) == position(here)
    mismatch = miner.call("heartbeat", base(new_keypair(), "heartbeat"))
    assert mismatch["code"] == "sender_mismatch"


def test_who_answers_heartbeats_lives_and_who_is_silent_is_cut(brisk, opened, raw):
    keypair = new_keypair()
    allow(brisk, keypair)
    answering = opened(Miner(brisk, keypair))
    silent = raw(brisk)
    closing = silent.wait_for("closing")
    assert (closing["code"], closing["error"]) == (4408, "Connection timeout")
    assert len([name for name, _ in silent.pushed if name == "heartbeat"]) >= 3
    silent.read_to_the_end()
    assert answering.predict()["success"]
    assert "callback" not in brisk.log_text()


def test_any_packet_of_the_miner_is_life_and_a_transport_pong_is_none(brisk, raw):
    talking, silent = raw(brisk), raw(brisk)
    while not silent_is_over(silent):
        assert talking.call("no_such_event", {})["code"] == "unknown_event"
        silent.wire.send("3")
    assert talking.predict()["success"]


def silent_is_over(miner):
    """Reads one frame of the miner; whether it is the end."""
    miner.read()
    return any(name == "closing" for name, _ in miner.pushed)


def test_the_counts_are_those_of_the_sockets(brisk, raw):
    until(lambda: _counts(brisk)["connections"] == 0)
    active, silent, pending = raw(brisk), raw(brisk), raw(brisk, enter=False)
    until(lambda: _keeps_alive(active) and _is(brisk, connections=2, active_connections=1, pending=1))
    silent.close()
    pending.close()
    until(lambda: _keeps_alive(active) and _is(brisk, connections=1, active_connections=1, pending=0))
    active.close()
    until(lambda: _is(brisk, connections=0, active_connections=0, pending=0))


def _keeps_alive(miner):
    return miner.call("games", {})["success"]


def _is(node, **expected):
    counts = _counts(node)
    return {name: counts[name] for name in expected} == expected


# --- what an operator sees --------------------------------------------------------------------------------------


def test_metrics_and_log_lines_tell_of_the_miners(node, raw):
    miner = raw(node)
    miner.wait_for("game_update")
    receipt = miner.predict()
    Bookmaker(node).append(1)
    miner.wait_for("game_update", 2)
    raw(node, keypair=miner.keypair)
    miner.wait_for("closing")
    until(lambda: 'grid_ws_connections{state="open"}' in _metrics(node))
    metrics = _metrics(node)
    assert re.search(r'grid_ws_closed_total\{code="4409"\} [1-9]', metrics)
    assert re.search(r"grid_game_broadcast_seconds_count [1-9]", metrics)
    lines = [json.loads(line)["event"] for line in node.log_text().splitlines() if line.startswith("{")]
    address = miner.keypair.ss58_address
    assert f"WebSocket connection established with miner {address} (UID: None)" in lines
    assert f"Sent confirmation for prediction {receipt['prediction_id']} to {address} via WebSocket" in lines
    assert "Broadcasting game updates to connected miners" in lines
    assert receipt["signature"] not in node.log_text()


def _metrics(node):
    return node.metrics()


def test_a_node_that_ends_says_so_after_what_it_took_was_answered(tmp_path, raw):
    with running_node(tmp_path, prediction_burst=1000) as node:
        put_games(node)
        miner = raw(node)
        numbers = [_send_prediction(miner) for _ in range(50)]
        miner.answer_to(numbers[0])
        node.terminate()
        closing = miner.wait_for("closing")
        assert (closing["code"], closing["retry_after"]) == (4503, 2)
        miner.read_to_the_end()
        seen = [answer for answer in miner.answers.values() if answer["success"]]
        assert [json.loads(row.receipt) for row in stored(node, miner.keypair)][1:] == seen
