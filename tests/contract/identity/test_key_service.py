"""What API keys promise, on every store."""

import dataclasses
import itertools
import threading

import pytest
from sqlalchemy import text

from grid_node.clock import ManualClock
from grid_node.errors import Forbidden, InvalidKey, MissingKey, TooManyBadKeys
from grid_node.identity import keys
from grid_node.identity.refusal import Refused
from grid_node.identity.service import KeyService, NewKey
from grid_node.settings import Settings

KEY = "EWJzrqUL94r5BEz0ZLPUbEwD8qdQX18dCUF9B7C2e0"
INJECTION = "x' OR '1'='1"
HERE = "192.0.2.1"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def service(store, clock):
    return KeyService(store, clock, Settings())


def new(key=KEY, name="client-name", max_requests=100, period=60, **more):
    return NewKey(key, name, max_requests, period, **more)


def rows(store):
    return store.read(lambda tx: [tuple(row) for row in tx.execute(text("SELECT * FROM api_keys ORDER BY id"))])


def test_the_holder_of_a_key_is_known_by_it(service):
    info = service.add(new(scopes=["worker", "client"], max_concurrent=3))
    caller = service.authenticate(KEY, HERE, "client")
    assert caller.key_id == info.id
    assert (caller.name, caller.max_requests, caller.period, caller.max_concurrent) == ("client-name", 100, 60, 3)
    assert caller.scopes == {"client", "worker"}


@pytest.mark.parametrize("missing", [None, ""])
def test_no_key_is_a_missing_key(service, missing):
    with pytest.raises(MissingKey):
        service.authenticate(missing, HERE)


@pytest.mark.parametrize(
    "wrong",
    [
        KEY.lower(),
        KEY + "0",
        KEY[:-1],
        KEY + " ",
        " " + KEY,
        "x",
        "x" * 100_000,
        "ключ" * 8,
        INJECTION,
        "\x00" * 20,
        "%" * 16,
    ],
)
def test_every_other_text_is_an_invalid_key(service, wrong):
    service.add(new())
    with pytest.raises(InvalidKey) as refusal:
        service.authenticate(wrong, HERE)
    assert refusal.value.body() == {"success": False, "error": "Invalid API Key", "code": "invalid_key", "status": 401}


@pytest.mark.parametrize("wrong", [5, True, ["k"], {"k": 1}, KEY.encode()])
def test_a_key_that_is_no_text_is_invalid(service, wrong):
    service.add(new())
    with pytest.raises(InvalidKey):
        service.authenticate(wrong, HERE)


def test_the_digest_and_the_id_open_nothing(service):
    info = service.add(new())
    for wrong in (keys.digest(KEY), info.id):
        with pytest.raises(InvalidKey):
            service.authenticate(wrong, HERE)


def test_a_key_without_the_scope_is_forbidden(service):
    service.add(new(scopes=["worker"]))
    with pytest.raises(Forbidden):
        service.authenticate(KEY, HERE, "client")
    assert service.authenticate(KEY, HERE, "worker")
    assert service.authenticate(KEY, HERE)


@pytest.mark.parametrize("end", ["remove", "disable", "expire"])
def test_a_key_that_ended_is_invalid_at_once_and_everywhere(service, store, clock, end):
    info = service.add(new(expires_at=clock.now() + 10))
    elsewhere = KeyService(store, clock, Settings())
    caller = elsewhere.authenticate(KEY, HERE)
    if end == "expire":
        clock.advance(10)
    else:
        getattr(service, end)(info.id)
    with pytest.raises(InvalidKey):
        elsewhere.authenticate(KEY, HERE)
    with pytest.raises(InvalidKey):
        store.write(lambda tx: elsewhere.require(tx, caller.key_id, "client", clock.now()))
    assert elsewhere.in_force([caller.key_id]) == set()


def test_a_changed_limit_is_seen_by_the_next_request(service, store, clock):
    info = service.add(new())
    service.limit(info.id, "7", "30")
    caller = store.write(lambda tx: service.require(tx, info.id, "client", clock.now()))
    assert (caller.max_requests, caller.period) == (7, 30)


def test_a_disabled_key_can_be_enabled_again(service):
    info = service.add(new())
    service.disable(KEY)
    assert service.enable(info.id).state == "active"
    assert service.authenticate(KEY, HERE).key_id == info.id


def test_every_change_moves_the_epoch_and_nothing_else_does(service, store, clock):
    epochs = [service.epoch()]
    key_id = service.add(new()).id
    for change in (
        lambda: service.limit(key_id, 1, 1),
        lambda: service.disable(key_id),
        lambda: service.enable(key_id),
        lambda: service.remove(key_id),
        lambda: service.add_all([new()]),
    ):
        epochs.append(service.epoch())
        change()
    epochs.append(service.epoch())
    assert epochs == list(range(len(epochs)))
    with pytest.raises(Refused):
        service.add(new())
    service.authenticate(KEY, HERE)
    assert KeyService(store, clock, Settings()).epoch() == epochs[-1]


def test_a_generated_key_keeps_its_own_id_and_another_gets_one(service):
    generated = service.generate()
    assert service.add(new(generated, "a")).id == generated[2:10]
    assert service.add(new(KEY, "b")).id.startswith("x")


def test_a_generated_id_that_is_taken_is_not_taken_again(store, clock):
    same = KeyService(store, clock, Settings(), random=lambda size: b"\x07" * size)
    first = same.generate()
    body = first[:11] + "0" * 43
    twin = body + keys._checksum(body)
    assert keys.own_id(twin) == keys.own_id(first)
    service = KeyService(store, clock, Settings())
    assert service.add(new(first, "a")).id == first[2:10]
    assert service.add(new(twin, "b")).id.startswith("x")
    assert service.authenticate(twin, HERE).name == "b"


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"key": INJECTION}, "API key must be 16 to 200 printable"),
        ({"name": "a|b"}, "name must be"),
        ({"max_requests": "many"}, "max_requests must be a whole number from 0 to 1000000"),
        ({"max_requests": -1}, "max_requests must be"),
        ({"period": 0}, "period must be a whole number from 1 to 2678400"),
        ({"max_concurrent": "-1"}, "max_concurrent must be"),
        ({"scopes": ["root"]}, "scope must be one of"),
        ({"expires_at": 1.0}, "expires is in the past"),
        ({"key": KEY, "name": "other"}, "API key already exists: x"),
        ({"name": "client-name"}, "name is already used by API key x"),
    ],
)
def test_a_key_that_cannot_be_changes_nothing(service, store, change, refusal):
    service.add(new())
    before = rows(store)
    with pytest.raises(Refused, match=refusal):
        service.add(dataclasses.replace(new("another-key-of-one-client", "other"), **change))
    assert rows(store) == before
    assert service.epoch() == 1


def test_a_name_is_free_again_when_its_key_is_not_in_force(service, clock):
    first = service.add(new())
    service.disable(first.id)
    second = service.add(new("another-key-of-one-client"))
    with pytest.raises(Refused, match=f"name is already used by API key {second.id}"):
        service.enable(first.id)


@pytest.mark.parametrize("operation", ["remove", "disable", "enable"])
@pytest.mark.parametrize("absent", ["absent", INJECTION, "absent-key-of-nobody", "", "%", "x" * 5000])
def test_an_absent_key_is_not_found_and_nothing_changes(service, store, operation, absent):
    service.add(new())
    before = rows(store)
    with pytest.raises(Refused, match=r"^API key not found$"):
        getattr(service, operation)(absent)
    assert rows(store) == before


def test_an_operation_that_would_change_nothing_is_refused(service):
    info = service.add(new())
    with pytest.raises(Refused, match="already has this limit"):
        service.limit(info.id, 100, 60)
    with pytest.raises(Refused, match="already enabled"):
        service.enable(info.id)
    service.disable(info.id)
    with pytest.raises(Refused, match="already disabled"):
        service.disable(info.id)


def test_many_keys_are_added_all_or_none(service, store):
    good = new("one-good-key-of-a-client", "one")
    with pytest.raises(Refused, match=r"^row 2: period must be"):
        service.add_all([good, new("two-good-key-of-a-client", "two", period=0)])
    with pytest.raises(Refused, match=r"^row 2: name is already used"):
        service.add_all([good, new("two-good-key-of-a-client", "one")])
    assert rows(store) == []
    assert [info.name for info in service.add_all([good, good])] == ["one"]
    with pytest.raises(Refused, match="nothing to add"):
        service.add_all([good])
    with pytest.raises(Refused, match="no API keys found"):
        service.add_all([])


def test_of_two_who_add_the_same_at_once_one_is_refused(store, clock):
    outcomes = []
    gate = threading.Barrier(4)

    def add():
        service = KeyService(store, clock, Settings())
        gate.wait()
        try:
            outcomes.append(service.add(new()).id)
        except Refused:
            outcomes.append(None)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert len([o for o in outcomes if o]) == 1
    assert len(rows(store)) == 1


def test_keys_are_listed_oldest_first_with_their_state(service, clock):
    assert service.all_keys() == []
    for name in ("a", "b", "c"):
        service.add(new(f"key-number-one-of-{name}", name, expires_at=clock.now() + 5 if name == "a" else None))
        clock.advance(2)
    service.disable("key-number-one-of-b")
    assert [(k.name, k.state) for k in service.all_keys()] == [("a", "expired"), ("b", "disabled"), ("c", "active")]


def test_the_21st_bad_key_of_an_address_is_the_last_that_is_looked_at_as_such(service, clock):
    service.add(new())
    for number in range(21):
        with pytest.raises(InvalidKey):
            service.authenticate(f"wrong-key-number-{number}", HERE)
    clock.advance(100)
    with pytest.raises(TooManyBadKeys) as refusal:
        service.authenticate("wrong-key-number-22", HERE)
    assert refusal.value.body()["retry_after"] == 200
    assert refusal.value.status == 429
    with pytest.raises(InvalidKey):
        service.authenticate("wrong-key-number-22", "192.0.2.2")
    assert service.authenticate(KEY, HERE)


def test_asking_without_a_key_or_without_the_scope_is_no_bad_key(service):
    service.add(new(scopes=["worker"]))
    for _ in range(30):
        with pytest.raises(MissingKey):
            service.authenticate(None, HERE)
        with pytest.raises(Forbidden):
            service.authenticate(KEY, HERE, "client")
    with pytest.raises(InvalidKey):
        service.authenticate("wrong-key-number-1", HERE)


def last_used(service):
    return service.all_keys()[0].last_used_at


def test_the_last_use_is_written_at_most_once_a_minute(service, store, clock):
    service.add(new())
    began = clock.now()
    seen = []
    for _ in range(3):
        caller = service.authenticate(KEY, HERE)
        store.write(lambda tx, caller=caller: service.touch(tx, caller, clock.now()))
        seen.append(last_used(service) - began)
        clock.advance(30)
    assert seen == [0, 0, 60]


def test_a_use_that_only_reads_is_written_later(service, clock):
    service.add(new())
    service.authenticate(KEY, HERE)
    assert last_used(service) is None
    service.flush_uses()
    first = clock.now()
    assert last_used(service) == first
    clock.advance(59)
    service.authenticate(KEY, HERE)
    service.flush_uses()
    assert last_used(service) == first
    clock.advance(1)
    service.authenticate(KEY, HERE)
    service.flush_uses()
    service.flush_uses()
    assert last_used(service) == clock.now()


def test_a_removed_key_that_comes_back_starts_anew(service):
    first = service.add(new())
    service.remove(KEY)
    again = service.add(new())
    assert again.state == "active"
    assert again.id != first.id


def test_nothing_that_describes_a_key_shows_it(service):
    asked = new()
    info = service.add(asked)
    caller = service.authenticate(KEY, HERE)
    with pytest.raises(Refused) as refusal:
        service.add(asked)
    for shown in (asked, info, caller, refusal.value, service.all_keys()):
        assert KEY not in repr(shown)


def test_many_keys_are_told_apart(service):
    numbers = itertools.count()
    made = {service.generate(): f"n{next(numbers)}" for _ in range(20)}
    for key, name in made.items():
        service.add(new(key, name))
    assert {name: service.authenticate(key, HERE).name for key, name in made.items()} == {n: n for n in made.values()}
