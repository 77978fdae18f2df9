"""Certificates: a fresh pair each time, the private half in the answer alone."""

import json
import logging

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grid_node.chain.certificates import CertificateWriter
from grid_node.chain.ports import NodeUnreachable, Signer, WriteRefused
from grid_node.clock import ManualClock
from grid_node.errors import ChainInvalid, ChainWriteFailed
from grid_node.settings import Settings
from tests.chain_stub import LANDS_UNHEARD, LOST, StubChain, hotkey_of

SIGNER = Signer("sn1", 1, "wallet", "hotkey")


@pytest.fixture
def chain():
    chain = StubChain()
    chain.seed(1, 4)
    return chain


@pytest.fixture
def writer(chain):
    clock = ManualClock()

    def sleep(seconds):
        clock.advance(seconds)
        chain.advance()

    return CertificateWriter(clock, Settings(), chain, sleep)


def on_chain(chain):
    return chain.certificate(1, hotkey_of("sn1"), chain.at(chain.head_number))


def test_the_public_half_is_on_the_chain_and_belongs_to_the_private_one(chain, writer):
    issued = writer.generate(SIGNER, 1)

    told = json.loads(issued.body)
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(told.pop("private_key")))
    assert told == {"algorithm": 1, "public_key": on_chain(chain).public_key.hex()}
    assert private.public_key().public_bytes_raw() == on_chain(chain).public_key
    assert issued.landed.block.number == chain.head_number


def test_each_pair_is_another(writer):
    assert writer.generate(SIGNER, 1).body != writer.generate(SIGNER, 1).body


def test_the_private_half_is_told_to_nobody_else(chain, writer, caplog):
    caplog.set_level(logging.DEBUG)
    private = json.loads(writer.generate(SIGNER, 1).body)["private_key"]

    assert private not in caplog.text
    assert private not in repr(vars(writer)) + repr(chain.asked)


@pytest.mark.parametrize("failure", [WriteRefused("not registered"), NodeUnreachable("gone")])
def test_a_failure_is_told_without_detail(chain, writer, failure):
    chain.fail("prepare_certificate", failure)

    with pytest.raises(ChainWriteFailed, match=r"^Could not generate certificate pair\.$"):
        writer.generate(SIGNER, 1)
    assert on_chain(chain) is None


def test_one_that_landed_unheard_counts(chain, writer):
    chain.outcomes.append(LANDS_UNHEARD)

    assert json.loads(writer.generate(SIGNER, 1).body)["public_key"] == on_chain(chain).public_key.hex()


def test_one_that_was_lost_failed(chain, writer):
    chain.outcomes.append(LOST)

    with pytest.raises(ChainWriteFailed):
        writer.generate(SIGNER, 1)


@pytest.mark.parametrize("algorithm", [0, 2, -1])
def test_there_is_one_algorithm(chain, writer, algorithm):
    with pytest.raises(ChainInvalid) as refused:
        writer.generate(SIGNER, algorithm)

    message = "Value error, Currently, only algorithm equals 1 is supported which is EdDSA using Ed25519 curve"
    assert refused.value.data["extra"] == [{"message": message, "key": "algorithm"}]
    assert chain.calls["prepare_certificate"] == 0
