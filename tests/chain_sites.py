"""A whole node with a chain beside it, over HTTP: on its own ledger, or on a subtensor that makes blocks quickly."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from bittensor_wallet import Keypair

from grid_node.chain.ports import Signer
from grid_node.chain.wallets import Wallets
from grid_node.chain.weights_tables import COMPLETED, EXPIRED, FAILED, SUPERSEDED
from tests.nodes import ROOT, LiveNode, until
from tests.subtensor import FakeSubtensor

TOKEN = "token-of-sn1"
IDENTITY = {
    "PYLON_IDENTITIES": '["sn1"]',
    "PYLON_ID_SN1_WALLET_NAME": "cold",
    "PYLON_ID_SN1_HOTKEY_NAME": "hot",
    "PYLON_ID_SN1_NETUID": "1",
    "PYLON_ID_SN1_TOKEN": TOKEN,
}
SIGNER = Signer("sn1", 1, "cold", "hot")
OA, ID = "/api/v1/subnet/1", "/api/v1/identity/sn1/subnet/1"
SETTINGS = {"scoring_processes": 0, "compute_processes": 0}
BLOCK_SECONDS = 0.25
"""Of the subtensor's blocks: the eight of an extrinsic's era are two seconds."""
TEMPO = 40_000
"""No epoch ends while a test runs."""
OVER = (COMPLETED, FAILED, SUPERSEDED, EXPIRED)
WORKER = b"grid_node.chain.worker"
RESTART = 60.0
"""Seconds within which there is another chain process after one that died; where many died in a row, 30 are due."""
STAKE = 10**15
"""In rao: enough to set weights."""
CLIENT = httpx.Client(trust_env=False, timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
"""A connection for each request: nodes are killed in between."""


def address(name: str) -> str:
    """SS58 of a developer's key."""
    return str(Keypair.create_from_uri(f"//{name}").ss58_address)


class ChainNode:
    """A node over HTTP, as sn1 and as everybody see it."""

    def __init__(self, node: LiveNode) -> None:
        self.node = node

    def get(self, path: str, token: str = "") -> httpx.Response:
        return self._ask("GET", path, token)

    def own(self, below: str) -> dict[str, Any]:
        """What a route of the identity answers."""
        answer = self.get(f"{ID}{below}", TOKEN)
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said

    def neurons(self) -> dict[str, Any]:
        neurons: dict[str, Any] = self.own("/block/latest/neurons")["neurons"]
        return neurons

    def put(self, weights: Mapping[str, float]) -> dict[str, Any]:
        answer = self._ask("PUT", f"{ID}/weights", TOKEN, {"weights": dict(weights)})
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said

    def commit(self, data: str) -> httpx.Response:
        return self._ask("POST", f"{ID}/commitments", TOKEN, {"commitment": data})

    def status(self) -> dict[str, Any]:
        return self.own("/weights/status")

    def ended(self, seconds: float = 60.0) -> dict[str, Any]:
        """The newest job, once nothing more will become of it."""
        seen: list[dict[str, Any]] = [{}]

        def is_over() -> bool:
            seen[0] = self.status()
            return seen[0]["status"] in OVER

        try:
            until(is_over, seconds)
        except AssertionError:
            raise AssertionError(f"the job does not end: {seen[0]}") from None
        return seen[0]

    def chain_status(self) -> dict[str, Any]:
        said: dict[str, Any] = self.get("/api/v1/chain/status").json()
        return said

    def _ask(self, method: str, path: str, token: str, body: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return CLIENT.request(method, self.node.url + path, headers=headers, json=body)

    # --- the chain's process ----------------------------------------------------------------------------------

    def worker_pid(self) -> int:
        """Of the chain's process, once there is one."""
        until(lambda: bool(workers_of(self.node.pid)), RESTART)
        return workers_of(self.node.pid)[0]

    def kill_worker(self) -> None:
        """kill -9 to the chain's process alone."""
        os.kill(self.worker_pid(), signal.SIGKILL)


def workers_of(group: int) -> list[int]:
    """Chain processes of the node whose process group this is."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and WORKER in (entry / "cmdline").read_bytes().split(b"\0"):
                pid = int(entry.name)
                found += [pid] if os.getpgid(pid) == group else []
        except OSError:
            pass  # it ended meanwhile
    return found


class LedgerSite(ChainNode):
    """On the ledger. `register` and the like are commands of an operator, in processes of their own."""

    def __init__(self, folder: Path, *, pylon: Mapping[str, str] | None = None, **settings: Any) -> None:
        super().__init__(LiveNode(folder, pylon={**IDENTITY, **(pylon or {})}, **{**SETTINGS, **settings}))

    def flask(self, *words: str) -> str:
        """What `flask chain ...` prints."""
        command = [sys.executable, "-W", "ignore", "-m", "flask", "--app", "app", "chain", *words]
        environ = self.node._environment()
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def close(self) -> None:
        self.node.discard()


class SubtensorSite(ChainNode):
    """On a subtensor whose subnet 1 has the identity as uid 0 and three developers after it."""

    def __init__(
        self,
        folder: Path,
        *,
        pylon: Mapping[str, str] | None = None,
        block_seconds: float | None = BLOCK_SECONDS,
        finality_lag: int = 1,
        subnet: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.fake = FakeSubtensor(block_seconds, finality_lag=finality_lag)
        self.is_away = False
        self.hotkey = Wallets(folder / "wallets", create_missing=True).hotkey(SIGNER)
        self.alice, self.bob, self.carol = address("Alice"), address("Bob"), address("Charlie")
        self.fake.chain.add_subnet(1, **{"tempo": TEMPO, **(subnet or {})})
        self.fake.chain.add_neuron(1, self.hotkey, validator_permit=True, total_stake=STAKE, alpha_stake=STAKE)
        for hotkey in (self.alice, self.bob, self.carol):
            self.fake.chain.add_neuron(1, hotkey)
        self.fake.chain.advance(10)
        self.fake.start()
        environ = {**self._environ(folder, block_seconds), **(pylon or {})}
        super().__init__(LiveNode(folder, pylon=environ, **{**SETTINGS, **settings}))

    def _environ(self, folder: Path, block_seconds: float | None) -> dict[str, str]:
        return {
            **IDENTITY,
            "PYLON_BITTENSOR_NETWORK": self.fake.uri,
            "PYLON_BITTENSOR_ARCHIVE_NETWORK": self.fake.uri,
            "PYLON_BITTENSOR_WALLET_PATH": str(folder / "wallets"),
            "PYLON_BLOCK_DURATION_SECONDS": str(block_seconds or 12),
            "PYLON_WEIGHTS_RETRY_DELAY_SECONDS": "0.2",
            "PYLON_COMMITMENT_RETRY_DELAY_SECONDS": "0.2",
        }

    def start(self) -> None:
        self.node.start()
        until(lambda: self.chain_status()["head"] is not None)

    def landed(self, function: str = "set_weights") -> list[dict[int, int]]:
        """Weights of every extrinsic of the identity that the chain has, oldest first; those in vain too."""
        calls = [one.call[2] for _block, one in self.fake.chain.landed(function, self.hotkey)]
        return [dict(zip(call["dests"], call["weights"], strict=True)) for call in calls]

    def commits(self) -> int:
        """Extrinsics with sealed weights."""
        return len(self.fake.chain.landed("commit_timelocked_weights", self.hotkey))

    def wait_blocks(self, count: int) -> None:
        """Until so many more are final."""
        last = self.fake.chain.finalized.number + count
        until(lambda: self.fake.chain.finalized.number >= last)

    def away(self) -> None:
        """The subtensor is gone, for this node: it goes on elsewhere."""
        self.fake.stop()
        self.is_away = True

    def back(self, missed: int = 0) -> None:
        """It is there again, with so many blocks that were made meanwhile."""
        self.fake.chain.advance(missed)
        self.fake.start()
        self.is_away = False

    def close(self) -> None:
        self.node.discard()
        self.fake.stop()
