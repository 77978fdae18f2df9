"""Operations of a chain that are timed for it."""

import inspect
from dataclasses import replace

import pytest

from grid_node.chain.measured import Measured
from grid_node.chain.ports import Certificate, ChainPort, NodeUnreachable, Signer
from grid_node.chain.samples import Samples
from tests.chain_stub import PLAIN, StubChain, hotkey_of

SEALED = replace(PLAIN, commit_reveal=True)
SN1 = Signer("sn1", 1, "w", "h")


@pytest.fixture
def chain():
    made = StubChain()
    made.seed(1, 3)
    return made


@pytest.fixture
def samples():
    return Samples()


@pytest.fixture
def measured(chain, samples):
    return Measured(chain, "ledger", samples)


def told(samples):
    return [tuple(sample[1:6]) for sample in samples.drain()]


def test_it_has_every_method_of_the_port():
    names = [name for name, _ in inspect.getmembers(ChainPort, inspect.isfunction) if not name.startswith("_")]
    assert len(names) > 15
    for name in names:
        assert inspect.signature(getattr(Measured, name)) == inspect.signature(getattr(ChainPort, name))


def test_reads_are_named_as_pylon_names_them(measured, samples, chain):
    block = measured.head()
    measured.block(1000)
    assert measured.neurons(1, block) == chain.neurons(1, block)
    measured.hyperparams(1, block)
    measured.commitments(1, block)
    measured.commitment(1, "5F", block)
    measured.certificates(1, block)
    measured.certificate(1, "5F", block)
    measured.extrinsic(block, 0)

    none = ("success", "ledger", "N/A", "N/A")
    of_subnet = ("success", "ledger", 1, "N/A")
    assert told(samples) == [
        ("get_latest_block", *none),
        ("get_block", *none),
        ("get_neurons", *of_subnet),
        ("get_hyperparams", *of_subnet),
        ("get_commitments", *of_subnet),
        ("get_commitment", *of_subnet),
        ("get_certificates", *of_subnet),
        ("get_certificate", *of_subnet),
        ("get_extrinsic", *none),
    ]


@pytest.mark.parametrize(
    ("prepare", "operation"),
    [
        (lambda port: port.prepare_commitment(SN1, b"a"), "set_commitment"),
        (lambda port: port.prepare_certificate(SN1, Certificate(1, bytes(32))), "generate_certificate_keypair"),
        (lambda port: port.prepare_weights(SN1, [0], [65535], PLAIN), "set_weights"),
        (lambda port: port.prepare_weights(SN1, [0], [65535], SEALED), "commit_weights"),
    ],
)
def test_writes_name_the_hotkey(measured, samples, prepare, operation):
    measured.submit(prepare(measured), 120)

    assert told(samples) == [(operation, "success", "ledger", 1, hotkey_of("sn1"))]


def test_what_was_signed_and_not_sent_is_forgotten(measured, chain):
    for _ in range(5):
        measured.prepare_commitment(SN1, b"a")

    assert len(measured._signed) == 1


def test_what_fails_is_an_error(measured, samples, chain):
    chain.is_down = "connection refused"
    with pytest.raises(NodeUnreachable):
        measured.head()

    assert told(samples) == [("get_latest_block", "error", "ledger", "N/A", "N/A")]
