"""What a read from memory costs: the CPU time of all processes of a node, over real connections."""

from collections.abc import Iterator
from http.client import HTTPConnection

import psutil
import pytest

from grid_node.chain.ledger import operating
from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine
from grid_node.settings import Settings
from tests.chain_house import OPEN, SN1, bearer
from tests.nodes import LiveNode, running_node, until

READS = 2000
MOST = 0.0011
"""Seconds of CPU for one answer of 256 neurons."""
PYLON = {
    "PYLON_OPEN_ACCESS_TOKEN": OPEN,
    "PYLON_IDENTITIES": '["sn1"]',
    "PYLON_ID_SN1_WALLET_NAME": "w",
    "PYLON_ID_SN1_HOTKEY_NAME": "h",
    "PYLON_ID_SN1_NETUID": "1",
    "PYLON_ID_SN1_TOKEN": SN1,
}


class Reader:
    """One connection that is kept."""

    def __init__(self, port: int, path: str, token: str) -> None:
        self._peer = HTTPConnection("127.0.0.1", port, timeout=30)
        self._path = path
        self._headers = {**bearer(token), "X-Pylon-Timeout": "60.0"}

    def read(self) -> bytes:
        self._peer.request("GET", self._path, headers=self._headers)
        answer = self._peer.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body

    def close(self) -> None:
        self._peer.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("cost"), pylon=PYLON) as live:
        reader = Reader(live.port, "/api/v1/subnet/1/block/latest/neurons", OPEN)
        reader.read()  # the ledger has its subnet
        store = DirectStore(engine := make_engine(f"sqlite:///{live.data}/grid.db"))
        operating.seed(store, SystemClock(), Settings.load({}, data_dir=live.data), 1, 256)
        engine.dispose()
        until(lambda: reader.read().count(b'"uid":') == 256)
        reader.close()
        yield live


@pytest.mark.parametrize(
    ("path", "token"),
    [
        ("/api/v1/subnet/1/block/latest/neurons", OPEN),
        ("/api/v1/identity/sn1/subnet/1/block/latest/neurons", SN1),
    ],
)
def test_a_read_from_memory_takes_a_millisecond_of_cpu_at_most(node: LiveNode, path: str, token: str) -> None:
    reader = Reader(node.port, path, token)
    size = len(reader.read())
    before = cpu_seconds(node.pid)

    for _ in range(READS):
        assert len(reader.read()) >= size - 20

    reader.close()
    assert size > 120_000
    assert (cpu_seconds(node.pid) - before) / READS <= MOST


def cpu_seconds(pid: int) -> float:
    """Of a process and all below it."""
    top = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in (top, *top.children(recursive=True)))
