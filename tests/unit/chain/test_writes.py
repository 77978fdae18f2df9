"""Writes on the web's side: handed to the chain's process, and seen by the reads that follow."""

import pytest

from grid_node.chain.frames import Answer
from grid_node.chain.pylon import Identity
from grid_node.chain.writes import ChainWrites
from grid_node.errors import ChainInvalid, ChainTimeout, ChainWriteFailed

IDENTITY = Identity("sn1", 1, "wallet", "hotkey", "token")


class Side:
    """Link and reads in one."""

    def __init__(self):
        self.outcome = Answer({"block_number": 77}, b'{"algorithm":1}')
        self.asked, self.written = [], []

    def ask(self, op, args, timeout):
        self.asked.append((op, args, timeout))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def wrote(self, number):
        self.written.append(number)


@pytest.fixture
def side():
    return Side()


@pytest.fixture
def writes(side):
    return ChainWrites(side, side)


def test_a_commitment_is_handed_over_and_later_reads_are_at_its_block(side, writes):
    assert writes.set_commitment(IDENTITY, b"\x00\xffraw", 5.0) == {"detail": "Commitment set successfully."}

    assert side.asked == [("set_commitment", {"identity": "sn1", "data": "00ff726177"}, 5.0)]
    assert side.written == [77]


def test_a_certificate_is_handed_over_and_its_body_told(side, writes):
    assert writes.generate_certificate(IDENTITY, 1, 5.0) == b'{"algorithm":1}'

    assert side.asked == [("generate_certificate", {"identity": "sn1", "algorithm": 1}, 5.0)]
    assert side.written == [77]


@pytest.mark.parametrize("error", [ChainWriteFailed("Failed to set commitment after 11 attempts: no"), ChainTimeout()])
def test_what_went_wrong_is_told_and_nothing_was_written(side, writes, error):
    side.outcome = error

    with pytest.raises(type(error)):
        writes.set_commitment(IDENTITY, b"x", 5.0)
    with pytest.raises(type(error)):
        writes.generate_certificate(IDENTITY, 1, 5.0)
    assert side.written == []


@pytest.mark.parametrize(
    ("data", "message"), [(b"", "Data should have at least 1 byte"), (b"x" * 129, "Data should have at most 128 bytes")]
)
def test_commitments_have_1_to_128_bytes(side, writes, data, message):
    with pytest.raises(ChainInvalid) as refused:
        writes.set_commitment(IDENTITY, data, 5.0)

    assert refused.value.data["extra"] == [{"message": message, "key": "commitment"}]
    assert side.asked == []


def test_128_bytes_are_taken(side, writes):
    writes.set_commitment(IDENTITY, b"x" * 128, 5.0)
    assert len(side.asked) == 1


def test_another_algorithm_is_refused_before_anybody_is_asked(side, writes):
    with pytest.raises(ChainInvalid):
        writes.generate_certificate(IDENTITY, 2, 5.0)
    assert side.asked == []
