"""The update log: what is written, followed, resumed, read whole and forgotten."""

import json
import threading
import zlib
from functools import partial
from typing import Any

import pytest

from grid_node.canonical import canonical
from grid_node.errors import InvalidMessage
from grid_node.predictions.tables import GameUpdate
from grid_node.predictions.update_log import Position, read_position
from tests.stadium import Stadium, message

DAY = 86400.0


def change(stadium: Stadium, times: int) -> None:
    """So many entries more, in one transaction."""
    stadium.store.write(lambda tx: [stadium.log.append(tx, {"g": {"league": str(n)}}) for n in range(times)])


def purge(stadium: Stadium) -> int:
    return stadium.store.write(lambda tx: stadium.log.purge(tx, stadium.clock.now()))


def back(stadium: Stadium, count: int) -> Position:
    """Where a reader is who missed `count` entries."""
    epoch, seq = stadium.log.newest
    return Position(epoch, seq - count)


# --- messages


def test_an_update_is_a_signed_message_with_base_fields(stadium: Stadium) -> None:
    stadium.add()
    epoch, seq = stadium.log.newest
    said = message(stadium.log.updates(Position(epoch, 0), 10)[0])
    assert (said["message_type"], said["kind"], said["epoch"], said["seq"]) == ("game_update", "delta", epoch, seq)
    assert said["sender_hotkey"] == stadium.signer.hotkey
    assert said["updated_games"]["g"]["team_a_odds"] == "1.8000"
    assert said.keys() - {"message_id", "timestamp", "signature"} == {
        *("message_type", "kind", "epoch", "seq", "sender_hotkey", "updated_games")
    }


def test_an_update_knows_its_sizes(stadium: Stadium) -> None:
    stadium.add(team_a="Đakovo", league="Đ" * 100)
    update = stadium.log.get(*stadium.log.newest)
    assert update is not None
    said = message(update)
    del said["signature"]
    assert update.canonical_size == len(canonical(said))
    assert zlib.decompress(update.packed()) == update.text.encode()
    assert update.raw_size == len(update.text.encode())


def test_an_update_is_signed_and_compressed_once_whoever_reads_it(stadium: Stadium) -> None:
    stadium.add()
    assert stadium.signer.signed_count == 0
    epoch, seq = stadium.log.newest
    first, again = stadium.log.get(epoch, seq), stadium.log.updates(Position(epoch, 0), 5)[0]
    assert first is not None
    assert first.text == again.text
    assert first.packed() is again.packed()
    assert stadium.signer.signed_count == 1


def test_threads_that_read_an_update_at_the_same_time_see_one_message(stadium: Stadium) -> None:
    stadium.games.import_games(stadium.rows(200))
    start, seen = threading.Barrier(8), []

    def read() -> None:
        start.wait(10)
        update = stadium.log.get(*stadium.log.newest)
        assert update is not None
        seen.append((update.text, update.packed()))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_an_entry_that_is_not_there_is_none(stadium: Stadium) -> None:
    stadium.add()
    epoch, _ = stadium.log.newest
    assert stadium.log.get(epoch, 0) is None
    assert stadium.log.get(epoch, 2) is None
    assert stadium.log.get("f" * 16, 1) is None
    assert stadium.log.updates(Position(epoch, 1), 5) == []
    assert stadium.log.updates(Position(epoch, 7), 5) == []
    assert stadium.log.updates(Position("f" * 16, 0), 5) == []


def test_updates_come_in_order_up_to_a_limit(stadium: Stadium) -> None:
    stadium.add()
    change(stadium, 5)
    epoch, _ = stadium.log.newest
    assert [one.seq for one in stadium.log.updates(Position(epoch, 2), 3)] == [3, 4, 5]
    assert [one.seq for one in stadium.log.updates(Position(epoch, 2), 500)] == [3, 4, 5, 6]


def test_a_change_that_is_undone_leaves_no_entry_and_wakes_nobody(stadium: Stadium) -> None:
    stadium.add()
    woken: list[int] = []
    stadium.log.follow(partial(woken.append, 1))

    def unit(tx: Any) -> None:
        stadium.log.append(tx, {"g": {"league": "x"}})
        raise ValueError

    with pytest.raises(ValueError):
        stadium.store.write(unit)
    assert (woken, stadium.logged(), stadium.log.newest.seq) == ([], [1], 1)
    change(stadium, 1)
    assert stadium.logged() == [1, 2]


# --- following


def test_a_follower_is_woken_after_each_commit_of_this_process(stadium: Stadium) -> None:
    seen: list[int] = []
    stadium.log.follow(lambda: seen.append(stadium.log.newest.seq))
    stadium.add()
    stadium.put(active=False)
    stadium.put()
    assert seen == [1, 2]


def test_a_follower_that_fails_takes_nobody_down(stadium: Stadium) -> None:
    seen: list[int] = []

    def broken() -> None:
        raise RuntimeError

    stadium.log.follow(broken)
    stadium.log.follow(partial(seen.append, 1))
    assert stadium.add()["seq"] == 1
    assert seen == [1]


def test_a_poll_finds_what_another_process_wrote(stadium: Stadium) -> None:
    other = stadium.beside()
    rung: list[int] = []
    other.log.ring = partial(rung.append, 1)
    woken: list[int] = []
    stadium.log.follow(partial(woken.append, 1))
    assert not stadium.log.poll()
    other.games.import_games(other.rows(450))
    assert (rung, woken) == ([1], [])
    assert stadium.log.poll()
    assert not stadium.log.poll()
    assert woken == [1]
    assert [len(stadium.delta(seq)) for seq in (1, 2, 3)] == [200, 200, 50]
    assert other.signer.signed_count == 0


def test_entries_of_two_processes_are_one_sequence(stadium: Stadium) -> None:
    other = stadium.beside()
    stadium.add("g1")
    other.add("g2")
    stadium.add("g3")
    assert [list(stadium.delta(seq)) for seq in (1, 2, 3)] == [["g1"], ["g2"], ["g3"]]
    other.log.poll()
    assert [list(other.delta(seq)) for seq in (1, 2, 3)] == [["g1"], ["g2"], ["g3"]]


def test_a_process_far_behind_reads_old_entries_from_the_table(stadium: Stadium) -> None:
    other = stadium.beside()
    stadium.add()
    change(stadium, 150)
    assert other.log.poll()
    epoch, newest = other.log.newest
    assert [one.seq for one in other.log.updates(Position(epoch, 0), 500)] == list(range(1, newest + 1))


# --- resuming


@pytest.mark.parametrize("missed", [0, 1, 40, 500])
def test_a_reader_gets_exactly_what_it_missed(stadium: Stadium, missed: int) -> None:
    stadium.add()
    change(stadium, missed)
    position = back(stadium, missed)
    resumed = stadium.log.resume(position)
    assert resumed == (True, None, stadium.log.newest, missed)
    found = stadium.log.updates(position, missed)
    assert [one.seq for one in found] == list(range(position.seq + 1, position.seq + missed + 1))


def test_a_reader_with_more_than_the_most_missed_is_told_so(make_stadium: Any) -> None:
    stadium = make_stadium(games_resume_max=5)
    stadium.add()
    change(stadium, 6)
    assert stadium.log.resume(back(stadium, 5)).recovered
    assert stadium.log.resume(back(stadium, 6)) == (False, "too_many", stadium.log.newest, 0)


def test_a_reader_of_another_epoch_is_told_so(stadium: Stadium) -> None:
    stadium.add()
    before = stadium.log.newest
    stadium.log.new_epoch()
    assert stadium.log.newest.seq == 0
    assert stadium.log.newest.epoch != before.epoch
    assert stadium.log.resume(before) == (False, "epoch_changed", stadium.log.newest, 0)
    change(stadium, 1)
    assert stadium.log.resume(before).reason == "epoch_changed"
    assert stadium.log.get(*before) is None
    assert stadium.delta(1)["g"].keys() == {"league"}


def test_an_epoch_begun_by_another_process_is_seen_by_the_poll(stadium: Stadium) -> None:
    stadium.add()
    other = stadium.beside()
    woken: list[int] = []
    other.log.follow(partial(woken.append, 1))
    epoch = stadium.log.new_epoch().epoch
    assert other.log.poll()
    assert (other.log.newest, woken) == (Position(epoch, 0), [1])
    assert stadium.count(GameUpdate) == 0


def test_a_process_that_appends_to_an_epoch_it_has_not_seen_goes_on_with_it(stadium: Stadium) -> None:
    stadium.add()
    other = stadium.beside()
    position = other.log.new_epoch()
    change(stadium, 1)
    assert stadium.log.newest == Position(position.epoch, 1)


def test_a_reader_ahead_is_told_so(stadium: Stadium) -> None:
    stadium.add()
    epoch, _ = stadium.log.newest
    assert stadium.log.resume(Position(epoch, 2)) == (False, "ahead", stadium.log.newest, 0)


def test_a_reader_that_comes_from_another_process_is_not_ahead(stadium: Stadium) -> None:
    other = stadium.beside()
    stadium.add()
    change(stadium, 2)
    assert other.log.resume(back(stadium, 1)) == (True, None, stadium.log.newest, 1)
    position = stadium.log.new_epoch()
    assert other.log.resume(position) == (True, None, position, 0)


def test_entries_beyond_the_age_expire(stadium: Stadium) -> None:
    stadium.add()
    change(stadium, 2)
    stadium.clock.advance(DAY - 1)
    change(stadium, 2)
    stadium.clock.advance(2)
    assert purge(stadium) == 3
    assert stadium.logged() == [4, 5]
    fresh = stadium.beside()
    assert fresh.log.resume(back(stadium, 2)).replayed == 2
    for missed in (3, 4, 5):
        assert fresh.log.resume(back(stadium, missed)) == (False, "expired", stadium.log.newest, 0)
    assert fresh.log.updates(back(stadium, 5), 10) == []


def test_entries_beyond_the_number_expire(make_stadium: Any) -> None:
    stadium = make_stadium(games_log_max_entries=3)
    stadium.add()
    change(stadium, 9)
    assert purge(stadium) == 7
    assert stadium.logged() == [8, 9, 10]
    assert purge(stadium) == 0
    fresh = stadium.beside()
    assert fresh.log.resume(back(stadium, 3)).recovered
    assert fresh.log.resume(back(stadium, 4)).reason == "expired"


def test_a_clock_that_went_back_leaves_no_hole_in_what_is_kept(stadium: Stadium) -> None:
    stadium.add()
    stadium.clock.advance(-2 * DAY)
    change(stadium, 1)
    stadium.clock.advance(2 * DAY)
    change(stadium, 1)
    purge(stadium)
    assert stadium.logged() == [3]


def test_the_seq_goes_on_after_everything_was_forgotten(stadium: Stadium) -> None:
    stadium.add()
    stadium.clock.advance(2 * DAY)
    purge(stadium)
    assert stadium.logged() == []
    fresh = stadium.beside()
    assert fresh.log.newest == stadium.log.newest
    assert fresh.log.resume(fresh.log.newest).recovered
    change(stadium, 1)
    assert stadium.logged() == [2]


def test_epoch_and_seq_survive_a_restart(stadium: Stadium) -> None:
    stadium.add()
    assert stadium.beside().log.newest == stadium.log.newest == Position(stadium.log.newest.epoch, 1)


@pytest.mark.parametrize("epoch", [None, 1, "", "0" * 15, "0" * 17, "0" * 15 + "G", "0" * 15 + "A", "٣" * 16])
def test_an_epoch_has_sixteen_hex_digits(epoch: object) -> None:
    with pytest.raises(InvalidMessage) as refused:
        read_position(epoch, 0)
    assert list(refused.value.data["fields"]) == ["epoch"]


@pytest.mark.parametrize("seq", [None, -1, 1.0, "1", True, 2**53])
def test_a_seq_is_a_whole_number_from_zero(seq: object) -> None:
    with pytest.raises(InvalidMessage) as refused:
        read_position("0123456789abcdef", seq)
    assert list(refused.value.data["fields"]) == ["seq"]
    assert read_position("0123456789abcdef", 0) == Position("0123456789abcdef", 0)


# --- snapshots


def test_a_snapshot_holds_whole_games_of_its_window_and_its_position(stadium: Stadium) -> None:
    for name, days in (("old", -4.01), ("oldest", -4), ("now", 0), ("last", 8), ("late", 8.01)):
        stadium.add(name, event_start_date=stadium.at(days * DAY))
    position, parts = stadium.log.snapshot()
    said = message(parts[0])
    assert position == stadium.log.newest == Position(said["epoch"], said["seq"])
    assert (said["kind"], said["part"], said["parts"]) == ("snapshot", 1, 1)
    assert said["updated_games"].keys() == {"oldest", "now", "last"}
    assert said["updated_games"]["now"] == stadium.games.list({})["games"]["now"]


def test_a_large_snapshot_comes_in_parts_under_one_seq(stadium: Stadium) -> None:
    stadium.games.import_games(stadium.rows(1001))
    position, parts = stadium.log.snapshot()
    said = [message(part) for part in parts]
    assert [len(one["updated_games"]) for one in said] == [500, 500, 1]
    assert [(one["part"], one["parts"], one["seq"]) for one in said] == [(n, 3, position.seq) for n in (1, 2, 3)]


def test_a_snapshot_without_games_has_one_empty_part(stadium: Stadium) -> None:
    (part,) = stadium.log.snapshot().parts
    assert message(part)["updated_games"] == {}


def test_a_snapshot_is_signed_once_for_all_who_join(stadium: Stadium) -> None:
    stadium.add()
    first, again = stadium.log.snapshot(), stadium.log.snapshot()
    assert first.parts[0].text == again.parts[0].text
    assert stadium.signer.signed_count == 1


def test_a_snapshot_is_made_anew_for_a_change_and_for_another_minute(stadium: Stadium) -> None:
    stadium.add("past", event_start_date=stadium.at(-4 * DAY + 30))
    assert stadium.log.snapshot().position.seq == 1
    stadium.add("next")
    assert stadium.log.snapshot().position.seq == 2
    stadium.clock.advance(60)
    (part,) = stadium.log.snapshot().parts
    assert message(part)["updated_games"].keys() == {"next"}


def test_a_snapshot_ahead_of_the_poll_takes_the_log_along(stadium: Stadium) -> None:
    other = stadium.beside()
    other.add()
    position, parts = stadium.log.snapshot()
    assert (position.seq, stadium.log.newest) == (1, position)
    assert json.loads(parts[0].text)["updated_games"].keys() == {"g"}
