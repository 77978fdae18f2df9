import base64
import hashlib

import pytest
from bittensor_wallet import Keypair
from hypothesis import given
from hypothesis import strategies as st

from grid_node.errors import BadSignature, InvalidHotkey, InvalidMessage
from grid_node.identity import hotkeys

ALICE = Keypair.create_from_seed("0x" + "01" * 32)
BOB = Keypair.create_from_seed("0x" + "02" * 32)
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(data):
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return text


def ss58(prefix, public_key):
    """SS58 as Substrate's documentation gives it, for prefixes below 64."""
    body = bytes([prefix]) + public_key
    return base58(body + hashlib.blake2b(b"SS58PRE" + body).digest()[:2])


def message(**members):
    return {
        "message_type": "prediction",
        "sender_hotkey": ALICE.ss58_address,
        "n": 1,
        "deep": {"b": [1, "ü"]},
        **members,
    }


def signed(keypair, plain):
    return {**plain, "signature": "0x" + keypair.sign(hotkeys.message_bytes(plain)).hex()}


def test_text_and_public_key_are_one_to_one():
    assert ss58(42, ALICE.public_key) == ALICE.ss58_address
    assert hotkeys.decode_hotkey(ALICE.ss58_address) == ALICE.public_key
    assert hotkeys.encode_hotkey(ALICE.public_key) == ALICE.ss58_address


@given(st.binary(min_size=32, max_size=32))
def test_every_public_key_survives_the_way_to_text_and_back(public_key):
    assert hotkeys.decode_hotkey(hotkeys.encode_hotkey(public_key)) == public_key


@pytest.mark.parametrize(
    "text",
    [
        ss58(0, ALICE.public_key),
        ss58(2, ALICE.public_key),
        ss58(42, ALICE.public_key[:31]),
        ss58(42, ALICE.public_key + b"\x00"),
        ALICE.ss58_address[:-1] + ("A" if ALICE.ss58_address[-1] != "A" else "B"),
        ALICE.ss58_address.lower(),
        ALICE.ss58_address + " ",
        " " + ALICE.ss58_address,
        "1" + ALICE.ss58_address,
        "0x" + ALICE.public_key.hex(),
        "",
        "5" * 10_000,
        "\ud800",
        None,
        5,
        ["5"],
        {},
        ALICE.ss58_address.encode(),
    ],
)
def test_any_other_text_is_no_hotkey(text):
    with pytest.raises(InvalidHotkey):
        hotkeys.decode_hotkey(text)


def test_a_signature_holds_for_its_signer_and_its_bytes():
    signature = ALICE.sign(b"bytes")
    assert hotkeys.verify(ALICE.public_key, b"bytes", signature)
    assert not hotkeys.verify(BOB.public_key, b"bytes", signature)
    assert not hotkeys.verify(ALICE.public_key, b"other", signature)


@pytest.mark.parametrize("signature", [b"", b"\x00" * 63, b"\x00" * 64, b"\xff" * 64, b"\x00" * 65])
def test_malformed_signatures_are_false_and_no_error(signature):
    assert not hotkeys.verify(ALICE.public_key, b"bytes", signature)


def test_a_public_key_that_is_no_curve_point_verifies_nothing():
    assert not hotkeys.verify(b"\xff" * 32, b"bytes", ALICE.sign(b"bytes"))
    assert not hotkeys.verify(b"\xff" * 31, b"bytes", ALICE.sign(b"bytes"))


@pytest.mark.parametrize(
    "text",
    [
        None,
        5,
        "",
        "0x",
        "0x" + "0" * 127,
        "0x" + "0" * 129,
        "0x" + "g" * 128,
        "0X" + "0" * 128,
        "0" * 130,
        b"0x" + b"0" * 128,
        "0x" + "٣" * 128,
    ],
)
def test_a_signature_of_another_form_is_bad(text):
    with pytest.raises(BadSignature):
        hotkeys.parse_signature(text)


def test_the_signed_text_is_domain_type_and_digest_of_the_canonical_form():
    digest = hashlib.sha256('{"a":"ü","message_type":"x","z":1}'.encode()).hexdigest()
    shuffled = {"z": 1, "message_type": "x", "a": "ü", "signature": "0xabc"}
    assert hotkeys.message_bytes(shuffled) == f"grid.v1.x.{digest}".encode()


def test_a_signed_message_passes_in_any_order_of_members():
    sent = signed(ALICE, message())
    hotkeys.check_message(ALICE.public_key, dict(reversed(sent.items())))


@pytest.mark.parametrize(
    "change",
    [
        {"n": 2},
        {"n": "1"},
        {"deep": {"b": ["ü", 1]}},
        {"extra": None},
        {"message_type": "confirmation"},
        {"sender_hotkey": BOB.ss58_address},
    ],
)
def test_a_changed_message_fails(change):
    with pytest.raises(BadSignature):
        hotkeys.check_message(ALICE.public_key, signed(ALICE, message()) | change)


def test_a_removed_member_or_another_signer_fails():
    sent = signed(ALICE, message())
    with pytest.raises(BadSignature):
        hotkeys.check_message(BOB.public_key, sent)
    del sent["n"]
    with pytest.raises(BadSignature):
        hotkeys.check_message(ALICE.public_key, sent)


def test_a_signature_of_the_bare_digest_or_of_wrapped_bytes_fails():
    plain = message()
    covered = hotkeys.message_bytes(plain)
    for forged in (ALICE.sign(covered.rsplit(b".", 1)[1]), ALICE.sign(b"<Bytes>" + covered[8:] + b"</Bytes>")):
        with pytest.raises(BadSignature):
            hotkeys.check_message(ALICE.public_key, {**plain, "signature": "0x" + forged.hex()})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60, "\ud800", b"x", {1: 2}, object()])
def test_what_json_cannot_say_exactly_is_an_invalid_message(value):
    with pytest.raises(InvalidMessage):
        hotkeys.check_message(ALICE.public_key, message(extra=value, signature="0x" + "0" * 128))


def test_nesting_without_end_is_an_invalid_message():
    deep = {}
    inner = deep
    for _ in range(100_000):
        inner["a"] = inner = {}
    with pytest.raises(InvalidMessage):
        hotkeys.canonical_digest(deep)


TASK = "5b0e8f3e-0000-4000-8000-000000000001"
DIGEST = "ab" * 32


def result_signature(keypair=ALICE, digest=DIGEST, task=TASK, node=BOB.ss58_address):
    return "0x" + keypair.sign(f"grid.v1.result.{digest}.{task}.{node}".encode()).hex()


def test_a_result_is_signed_for_bytes_task_and_node():
    hotkeys.check_result(ALICE.public_key, result_signature(), DIGEST, TASK, BOB.ss58_address)


@pytest.mark.parametrize(
    "other", [{"keypair": BOB}, {"digest": "cd" * 32}, {"task": TASK[:-1] + "2"}, {"node": ALICE.ss58_address}]
)
def test_a_result_signature_is_good_for_nothing_else(other):
    with pytest.raises(BadSignature):
        hotkeys.check_result(ALICE.public_key, result_signature(**other), DIGEST, TASK, BOB.ss58_address)


@pytest.mark.parametrize("missing", [None, "", "0x", base64.b64encode(b"x" * 64).decode()])
def test_a_result_without_a_signature_is_refused(missing):
    with pytest.raises(BadSignature):
        hotkeys.check_result(ALICE.public_key, missing, DIGEST, TASK, BOB.ss58_address)
