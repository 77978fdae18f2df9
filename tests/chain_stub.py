"""A chain that does as it is told: scripted answers, failures and delays for each call of the port, and a head that
moves only by hand."""

import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from grid_node.chain.bodies import Bodies
from grid_node.chain.desk import Backend, Desk, Writing
from grid_node.chain.lanes import InlineLane, Lane
from grid_node.chain.ports import (
    Block,
    BlockUnknown,
    Certificate,
    ChainPort,
    Commitment,
    Hyperparams,
    Landed,
    Neuron,
    NodeUnreachable,
    Prepared,
    Signer,
    StateDiscarded,
    SubnetUnknown,
    WriteRefused,
    WriteUncertain,
)
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.samples import Samples
from grid_node.clock import Clock
from grid_node.settings import Settings
from grid_node.ss58 import encode
from tests.inline_link import InlineLink

ERA = 8
"""Blocks that a signed extrinsic is good for."""
PLAIN = Hyperparams(360, False, 4, 1, 0)
LANDS = "lands"
LOST = "lost"
"""`submit` raises WriteUncertain, and nothing ever lands."""
LANDS_UNHEARD = "lands unheard"
"""`submit` raises WriteUncertain, and yet it landed."""


def hotkey_of(name: str) -> str:
    """A made-up SS58 address."""
    return encode(hashlib.blake2b(name.encode(), digest_size=32).digest())


def neuron_of(uid: int, **changes: Any) -> Neuron:
    """A neuron with plausible values, any of which can be said otherwise."""
    plain = Neuron(
        uid=uid,
        coldkey=hotkey_of(f"coldkey {uid}"),
        hotkey=hotkey_of(f"hotkey {uid}"),
        active=True,
        ip="1.2.3.4",
        port=8000 + uid,
        protocol=4,
        stake=1.0,
        rank=0.0,
        emission=0.0,
        incentive=uid / 65535,
        consensus=0.0,
        trust=0.0,
        validator_trust=0.0,
        dividends=0.0,
        last_update=100,
        validator_permit=uid % 4 == 0,
        pruning_score=65535,
        stake_alpha=1.0,
        stake_tao=0.5,
        stake_total=1.5,
    )
    return replace(plain, **changes)


@dataclass(frozen=True)
class Subnet:
    """A subnet as it is from some block on."""

    neurons: tuple[Neuron, ...] = ()
    commitments: Mapping[str, Commitment] = field(default_factory=dict)
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    hyperparams: Hyperparams = PLAIN


class StubChain:
    """Fills ChainPort. Blocks 0 to `head_number` exist; every change of a subnet makes a new one.

    `calls` counts by name of the method. `fail` and `hold` script a method by name; `is_down` fails all of them.
    """

    def __init__(self, head: int = 1000, *, uri: str = "ws://stub", born: int = 1_800_000_000 - 12_000) -> None:
        self.uri = uri
        self.head_number = head
        self.finalized_lag = 0
        self.born = born
        """Unix seconds of block 0; a block is 12 s."""
        self.discarded_below = 0
        """The state of older blocks is thrown away."""
        self.is_down: str | None = None
        """Why nothing is answered; None: all is well."""
        self.calls: Counter[str] = Counter()
        self.asked: list[tuple[Any, ...]] = []
        self.delays: dict[str, float] = {}
        """Seconds that a call of this name sleeps first."""
        self.hotkeys: dict[str, str] = {}
        """SS58 by the identity's name; others get a made-up one."""
        self.outcomes: deque[str | Exception] = deque()
        """What becomes of the next submissions: LANDS (also when empty), LOST, LANDS_UNHEARD, or an error to raise."""
        self.landed: list[tuple[Prepared, Landed]] = []
        self.nonces: Counter[str] = Counter()
        self.threads: set[int] = set()
        """Idents of the threads that called."""
        self._failures: dict[str, deque[Exception]] = {}
        self._gates: dict[str, threading.Event] = {}
        self._forks: list[tuple[int, int]] = [(0, 0)]
        self._subnets: dict[int, list[tuple[int, Subnet | None]]] = {}

    # --- by hand --------------------------------------------------------------------------------------------------

    def advance(self, blocks: int = 1) -> Block:
        self.head_number += blocks
        return self.at(self.head_number)

    def reorg(self, depth: int) -> Block:
        """The last `depth` blocks are others now."""
        self._forks.append((self.head_number - depth + 1, len(self._forks)))
        return self.at(self.head_number)

    def subnet(self, netuid: int, **changes: Any) -> Block:
        """Make or change a subnet in a new block: `neurons`, `commitments`, `certificates`, `hyperparams`."""
        now = self._now(netuid) or Subnet()
        return self._become(netuid, replace(now, **changes))

    def drop_subnet(self, netuid: int) -> Block:
        return self._become(netuid, None)

    def seed(self, netuid: int, neurons: int) -> Block:
        return self.subnet(netuid, neurons=tuple(neuron_of(uid) for uid in range(neurons)))

    def fail(self, method: str, *errors: Exception) -> None:
        """The next calls of this method raise these, one each."""
        self._failures.setdefault(method, deque()).extend(errors)

    @contextmanager
    def hold(self, method: str) -> Iterator[None]:
        """Calls of this method wait until the block ends (10 s at most)."""
        gate = self._gates[method] = threading.Event()
        try:
            yield
        finally:
            del self._gates[method]
            gate.set()

    def at(self, number: int) -> Block:
        """The block with this number, without a call."""
        fork = next(fork for first, fork in reversed(self._forks) if first <= number)
        digest = hashlib.blake2b(f"{fork}/{number}".encode(), digest_size=32).hexdigest()
        return Block(number, f"0x{digest}", self.born + 12 * number)

    # --- the port -------------------------------------------------------------------------------------------------

    def head(self) -> Block:
        self._called("head")
        return self.at(self.head_number)

    def genesis(self) -> str:
        self._called("genesis")
        return self.at(0).hash

    def finalized(self) -> int:
        self._called("finalized")
        return max(0, self.head_number - self.finalized_lag)

    def block(self, number: int) -> Block:
        self._called("block", number)
        if not 0 <= number <= self.head_number:
            raise BlockUnknown(f"no block {number}")
        return self.at(number)

    def state(self, netuid: int, block: Block) -> str:
        self._called("state", netuid, block)
        since = [since for since, _subnet in self._subnets.get(netuid, []) if since <= block.number]
        return f"{netuid}/{self.at(since[-1]).hash if since else 'none'}"

    def neurons(self, netuid: int, block: Block) -> list[Neuron]:
        self._called("neurons", netuid, block)
        return list(self._subnet(netuid, block).neurons)

    def hyperparams(self, netuid: int, block: Block) -> Hyperparams:
        self._called("hyperparams", netuid, block)
        return self._subnet(netuid, block).hyperparams

    def commitments(self, netuid: int, block: Block) -> list[Commitment]:
        self._called("commitments", netuid, block)
        return list(self._subnet(netuid, block).commitments.values())

    def commitment(self, netuid: int, hotkey: str, block: Block) -> Commitment | None:
        self._called("commitment", netuid, hotkey, block)
        return self._subnet(netuid, block).commitments.get(hotkey)

    def certificates(self, netuid: int, block: Block) -> dict[str, Certificate]:
        self._called("certificates", netuid, block)
        return dict(self._subnet(netuid, block).certificates)

    def certificate(self, netuid: int, hotkey: str, block: Block) -> Certificate | None:
        self._called("certificate", netuid, hotkey, block)
        return self._subnet(netuid, block).certificates.get(hotkey)

    def extrinsic(self, block: Block, index: int) -> dict[str, Any] | None:
        self._called("extrinsic", block, index)
        self._kept(block)
        if index != 0:
            return None
        call = {"name": "now", "type": "Moment", "value": block.timestamp * 1000}
        return {
            "block_number": block.number,
            "extrinsic_index": 0,
            "extrinsic_hash": block.hash,
            "extrinsic_length": 10,
            "address": None,
            "call": {"call_module": "Timestamp", "call_function": "set", "call_args": [call]},
        }

    def hotkey(self, signer: Signer) -> str:
        self.calls["hotkey"] += 1
        self._raise_scripted("hotkey")
        return self.hotkeys.get(signer.identity) or hotkey_of(signer.identity)

    def prepare_weights(self, signer: Signer, uids: Sequence[int], values: Sequence[int], at: Hyperparams) -> Prepared:
        self._called("prepare_weights", signer, tuple(uids), tuple(values), at)
        return self._prepared(signer, ("weights", tuple(uids), tuple(values)), 12345 if at.commit_reveal else None)

    def prepare_commitment(self, signer: Signer, data: bytes) -> Prepared:
        self._called("prepare_commitment", signer, data)
        return self._prepared(signer, ("commitment", data))

    def prepare_certificate(self, signer: Signer, certificate: Certificate) -> Prepared:
        self._called("prepare_certificate", signer, certificate)
        return self._prepared(signer, ("certificate", certificate))

    def submit(self, prepared: Prepared, timeout: float) -> Landed:
        self._called("submit", prepared, timeout)
        known = next((landed for sent, landed in self.landed if sent.extrinsic_hash == prepared.extrinsic_hash), None)
        if known is not None:
            return known
        outcome = self.outcomes.popleft() if self.outcomes else LANDS
        if isinstance(outcome, Exception):
            raise outcome
        if outcome == LOST:
            raise WriteUncertain("no word of it")
        if self.head_number + 1 >= prepared.era_end:
            raise WriteRefused("the extrinsic is outdated")
        landed = self._land(prepared)
        if outcome == LANDS_UNHEARD:
            raise WriteUncertain("no word of it")
        return landed

    def find(self, extrinsic_hash: str, first: int, last: int) -> Landed | None:
        self._called("find", extrinsic_hash, first, last)
        for prepared, landed in self.landed:
            if prepared.extrinsic_hash == extrinsic_hash and first <= landed.block.number <= last:
                return landed
        return None

    def endpoints(self) -> list[Mapping[str, Any]]:
        return [{"uri": self.uri, "ok": self.is_down is None, "error": self.is_down}]

    def close(self) -> None:
        self.calls["close"] += 1

    # --- inside ---------------------------------------------------------------------------------------------------

    def _called(self, method: str, *args: Any) -> None:
        self.calls[method] += 1
        self.asked.append((method, *args))
        self.threads.add(threading.get_ident())
        gate = self._gates.get(method)
        if gate is not None:
            gate.wait(10)
        if method in self.delays:
            time.sleep(self.delays[method])
        if self.is_down is not None:
            raise NodeUnreachable(self.is_down)
        self._raise_scripted(method)

    def _raise_scripted(self, method: str) -> None:
        failures = self._failures.get(method)
        if failures:
            raise failures.popleft()

    def _kept(self, block: Block) -> None:
        if block.number > self.head_number or self.at(block.number) != block:
            raise BlockUnknown(f"no block {block.number}")
        if block.number < self.discarded_below:
            raise StateDiscarded(f"the state of block {block.number} is gone")

    def _subnet(self, netuid: int, block: Block) -> Subnet:
        self._kept(block)
        known = [subnet for since, subnet in self._subnets.get(netuid, []) if since <= block.number]
        if not known or known[-1] is None:
            raise SubnetUnknown(f"no subnet {netuid}")
        return known[-1]

    def _now(self, netuid: int) -> Subnet | None:
        versions = self._subnets.get(netuid)
        return versions[-1][1] if versions else None

    def _become(self, netuid: int, subnet: Subnet | None) -> Block:
        block = self.advance()
        self._subnets.setdefault(netuid, []).append((block.number, subnet))
        return block

    def _prepared(self, signer: Signer, payload: tuple[Any, ...], reveal_round: int | None = None) -> Prepared:
        nonce = self.nonces[signer.identity]
        self.nonces[signer.identity] += 1
        text = f"{signer}/{payload}/{nonce}/{self.head_number}"
        digest = hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
        start = self.head_number
        return Prepared(f"0x{digest}", nonce, start, start + ERA, reveal_round, (signer, payload))

    def _land(self, prepared: Prepared) -> Landed:
        signer, (kind, *content) = prepared.payload
        netuid, hotkey = signer.netuid, self.hotkeys.get(signer.identity) or hotkey_of(signer.identity)
        now = self._now(netuid) or Subnet()
        number = self.head_number + 1
        if kind == "commitment":
            new = Commitment(hotkey, content[0], number)
            block = self.subnet(netuid, commitments={**now.commitments, hotkey: new})
        elif kind == "certificate":
            block = self.subnet(netuid, certificates={**now.certificates, hotkey: content[0]})
        else:
            block = self.advance()
        landed = Landed(block, prepared.extrinsic_hash)
        self.landed.append((prepared, landed))
        return landed

    @property
    def weights(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(uids, values) of every weights extrinsic that landed, in order."""
        payloads = [prepared.payload[1] for prepared, _landed in self.landed]
        return [(payload[1], payload[2]) for payload in payloads if payload[0] == "weights"]


class StubWriting:
    """What the desk's writer does, straight on a port: no retries, no rows. `turns` counts."""

    def __init__(self, port: ChainPort) -> None:
        self._port = port
        self.turns = 0

    def commit(self, signer: Signer, data: bytes) -> Landed:
        return self._port.submit(self._port.prepare_commitment(signer, data), 120)

    def generate(self, signer: Signer, algorithm: int) -> tuple[Landed, bytes]:
        certificate = Certificate(algorithm, hashlib.blake2b(signer.identity.encode(), digest_size=32).digest())
        landed = self._port.submit(self._port.prepare_certificate(signer, certificate), 120)
        return landed, orjson.dumps({**certificate.body(), "private_key": "00" * 32})

    def turn(self) -> float | None:
        self.turns += 1
        return None


def stub_link(
    chain: StubChain,
    settings: Settings,
    pylon: PylonSettings,
    clock: Clock,
    *,
    archive: StubChain | None = None,
    threads: bool = False,
    writing: Writing | None = None,
) -> InlineLink:
    """A link to this chain within the process. Without `threads` every call is done where it is asked, at once."""
    desk = Desk(
        Backend(chain, archive, chain, pylon.bittensor_archive_blocks_cutoff),
        Bodies(),
        clock,
        settings,
        pylon,
        Samples(clock.steady),
        writing or StubWriting(chain),
        lane=Lane if threads else InlineLane,
    )
    return InlineLink(desk, settings.chain_queue_max)
