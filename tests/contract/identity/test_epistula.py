"""What signed requests promise, on every store."""

import threading
import uuid
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from bittensor_wallet import Keypair
from grid_client.signing import request_headers
from sqlalchemy import text
from werkzeug.datastructures import Headers

from grid_node.clock import ManualClock
from grid_node.errors import (
    BadSignature,
    InvalidHotkey,
    InvalidMessage,
    MissingAuth,
    ReplayedRequest,
    StaleTimestamp,
    WrongReceiver,
)
from grid_node.identity.epistula import Epistula, body_digest
from grid_node.settings import Settings

WORKER = Keypair.create_from_seed("0x" + "01" * 32)
OTHER = Keypair.create_from_seed("0x" + "02" * 32)
NODE = Keypair.create_from_seed("0x" + "0a" * 32).ss58_address
OTHER_NODE = Keypair.create_from_seed("0x" + "0b" * 32).ss58_address
BODY = b'{"kinds":["text_to_3d"]}'
DIGEST = body_digest("POST", "/worker/tasks/pull", BODY)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def epistula(store, clock):
    return Epistula(store, clock, NODE, Settings())


def signed(clock, keypair=WORKER, node=NODE, digest=DIGEST, late=0.0, request_id=None, **changed):
    at = datetime.fromtimestamp(clock.now() + late, UTC)
    made = request_headers(keypair, node, digest, at, request_id or uuid.uuid4())
    made |= {"Epistula-" + name.replace("_", "-"): value for name, value in changed.items()}
    return Headers({name: value for name, value in made.items() if value is not None})


def test_a_signed_request_is_accepted_for_its_signer(epistula, clock):
    request = epistula.accept(signed(clock), DIGEST)
    assert request.public_key == WORKER.public_key
    assert request.hotkey == WORKER.ss58_address


def test_header_names_are_read_in_any_case(epistula, clock):
    headers = Headers([(name.lower(), value) for name, value in signed(clock)])
    assert epistula.accept(headers, DIGEST)


def test_a_request_without_a_body_is_signed_by_its_line(epistula, clock):
    digest = sha256(b"GET /worker/feedback?after_seq=1&wait_s=2").hexdigest()
    assert body_digest("GET", "/worker/feedback?after_seq=1&wait_s=2", b"") == digest
    assert epistula.accept(signed(clock, digest=digest), digest)
    with pytest.raises(BadSignature):
        epistula.accept(signed(clock, digest=digest), body_digest("GET", "/worker/feedback?after_seq=0", b""))
    with pytest.raises(BadSignature):
        epistula.accept(signed(clock, digest=digest), body_digest("DELETE", "/worker/feedback", b""))


def test_a_request_is_good_once(epistula, clock, store):
    headers = signed(clock)
    epistula.accept(headers, DIGEST)
    with pytest.raises(ReplayedRequest):
        epistula.accept(headers, DIGEST)
    after_a_restart = Epistula(store, clock, NODE, Settings())
    with pytest.raises(ReplayedRequest):
        after_a_restart.accept(headers, DIGEST)


def test_the_id_is_the_same_in_upper_case(epistula, clock):
    request_id = uuid.uuid4()
    epistula.accept(signed(clock, request_id=request_id), DIGEST)
    with pytest.raises(ReplayedRequest):
        epistula.accept(signed(clock, request_id=str(request_id).upper()), DIGEST)


def test_two_workers_may_use_one_id(epistula, clock):
    request_id = uuid.uuid4()
    epistula.accept(signed(clock, request_id=request_id), DIGEST)
    assert epistula.accept(signed(clock, OTHER, request_id=request_id), DIGEST)


def test_a_request_that_was_refused_uses_no_id_up(epistula, clock):
    request_id = uuid.uuid4()
    with pytest.raises(BadSignature):
        epistula.accept(signed(clock, request_id=request_id), "0" * 64)
    assert epistula.accept(signed(clock, request_id=request_id), DIGEST)


def test_of_the_same_request_many_times_at_once_one_is_accepted(epistula, clock):
    headers, outcomes, gate = signed(clock), [], threading.Barrier(8)

    def ask():
        gate.wait()
        try:
            outcomes.append(bool(epistula.accept(headers, DIGEST)))
        except ReplayedRequest:
            outcomes.append(False)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]


@pytest.mark.parametrize("late", [-8.0, 8.0])
def test_a_clock_may_differ_by_the_window(epistula, clock, late):
    assert epistula.accept(signed(clock, late=late), DIGEST)


@pytest.mark.parametrize("late", [-8.001, 8.001, -9.0, 9.0, 86400.0])
def test_a_request_from_too_far_in_the_past_or_future_is_stale(epistula, clock, late):
    with pytest.raises(StaleTimestamp) as refusal:
        epistula.accept(signed(clock, late=late), DIGEST)
    assert refusal.value.body()["server_time"] == "2027-01-15T08:00:00.000Z"


def test_a_request_stamped_ahead_is_remembered_as_long_as_it_would_pass(epistula, clock, store):
    headers = signed(clock, late=8.0)
    epistula.accept(headers, DIGEST)
    clock.advance(16)
    assert store.write(lambda tx: epistula.purge(tx, clock.now())) == 0
    with pytest.raises(ReplayedRequest):
        epistula.accept(headers, DIGEST)
    clock.advance(0.01)
    assert store.write(lambda tx: epistula.purge(tx, clock.now())) == 1
    with pytest.raises(StaleTimestamp):
        epistula.accept(headers, DIGEST)


def test_no_headers_are_missing_authentication(epistula):
    with pytest.raises(MissingAuth):
        epistula.accept(Headers({"Epistula-Uuid": str(uuid.uuid4())}), DIGEST)


@pytest.mark.parametrize("node", [OTHER_NODE, None, "", WORKER.ss58_address])
def test_a_request_for_another_node_or_none_is_refused(epistula, clock, node):
    with pytest.raises(WrongReceiver):
        epistula.accept(signed(clock, Signed_For=node), DIGEST)


def test_a_request_signed_for_another_node_is_refused_under_our_name(epistula, clock):
    with pytest.raises(BadSignature):
        epistula.accept(signed(clock, node=OTHER_NODE, Signed_For=NODE), DIGEST)


@pytest.mark.parametrize("hotkey", ["5abc", "HNZata7iMYWmk5RvZRTiAsSDhV8366zq2YGb3tLH5Upf74F"])
def test_a_malformed_hotkey_is_an_invalid_hotkey(epistula, clock, hotkey):
    with pytest.raises(InvalidHotkey):
        epistula.accept(signed(clock, Signed_By=hotkey), DIGEST)


@pytest.mark.parametrize("signature", [None, "", "0x12", "0x" + "g" * 128, "0" * 128, "0x" + "0" * 128])
def test_a_missing_or_malformed_signature_is_bad(epistula, clock, signature):
    with pytest.raises(BadSignature):
        epistula.accept(signed(clock, Request_Signature=signature), DIGEST)


def test_the_name_of_another_hotkey_under_a_request_is_bad(epistula, clock):
    with pytest.raises(BadSignature):
        epistula.accept(signed(clock, Signed_By=OTHER.ss58_address), DIGEST)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Version", [None, "", "1", "3", "2.0", " 2"]),
        ("Timestamp", [None, "", "-1", "1.5", "now", "01800000000000", "9" * 400, "١"]),
        ("Uuid", [None, "", "x", str(uuid.uuid1()), uuid.uuid4().hex, "{" + str(uuid.uuid4()) + "}"]),
        ("Signed-By", [None, ""]),
    ],
)
def test_each_header_has_a_shape(epistula, clock, name, values):
    for value in values:
        with pytest.raises(InvalidMessage) as refusal:
            epistula.accept(signed(clock, **{name.replace("-", "_"): value}), DIGEST)
        assert list(refusal.value.data["fields"]) == [f"Epistula-{name}"]


@pytest.mark.parametrize("changed", [{"Timestamp": "1800000000001"}, {"Uuid": str(uuid.uuid4())}])
def test_a_changed_header_breaks_the_signature(epistula, clock, changed):
    with pytest.raises(BadSignature):
        epistula.accept(signed(clock, **changed), DIGEST)


def test_use_and_effect_are_one_transaction(epistula, clock, store):
    headers = signed(clock)
    request = epistula.open(headers)
    epistula.check(request, DIGEST)

    def unit(tx):
        epistula.remember(tx, request)
        raise ValueError

    with pytest.raises(ValueError):
        store.write(unit)
    assert store.read(lambda tx: tx.execute(text("SELECT count(*) FROM request_uuids")).scalar()) == 0
    assert epistula.accept(headers, DIGEST)
