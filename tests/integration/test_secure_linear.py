"""A linear layer on the shares of two real nodes, with triples of a third."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import torch
from grid_client.encrypted import EncryptedModels, Worker
from grid_client.errors import GridError
from grid_client.secure_linear import SecureLinear, ShareHolder, read, tolerance, written
from grid_client.shares import share_id, share_token
from grid_client.triples import BINARY, Provider, Triple

from tests.nodes import LiveNode

INPUTS, OUTPUTS = 48, 17
SECRET = "a secret of the client's own, long"
MAKE = torch.Generator().manual_seed(11)
STATE = {
    "0.weight": torch.randn(OUTPUTS, INPUTS, generator=MAKE),
    "0.bias": torch.randn(OUTPUTS, generator=MAKE),
    "1.weight": torch.randn(OUTPUTS, INPUTS, generator=MAKE) * 300,
}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two holders that know the provider, the provider, and a model whose shares are at the holders."""
    folder = tmp_path_factory.mktemp("secure")
    quiet = {"scoring_processes": 0, "compute_processes": 0, "models_auth": "write"}
    provider = LiveNode(folder / "provider", **quiet)
    named = [f"{provider.url}={provider.add_key('holder')}" for _ in range(2)]
    holders = [LiveNode(folder / f"holder{number}", share_peers=peer, **quiet) for number, peer in enumerate(named)]
    nodes = [provider, *holders]
    try:
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(LiveNode.start, nodes))
        workers = [Worker(f"w{number}", node.url, node.add_key("client")) for number, node in enumerate(holders)]
        keys = SimpleNamespace(client=provider.add_key("client"), holder=named[0].partition("=")[2])
        where = (provider.url, keys.client)
        with EncryptedModels(provider.url, keys.client) as models:
            set_id = models.serve("layer", STATE, workers, crypto_provider=("cp", provider.url), share_token=SECRET)
        yield SimpleNamespace(provider=where, holders=holders, workers=workers, set_id=set_id, keys=keys)
    finally:
        for node in nodes:
            node.discard()


def by_token(grid: Any) -> list[ShareHolder]:
    tokens = [share_token(SECRET, grid.set_id, index) for index in range(2)]
    return [ShareHolder(worker.address, token=token) for worker, token in zip(grid.workers, tokens, strict=True)]


def layer(grid: Any, weight: str = "0.weight", bias: str | None = "0.bias", **fields: Any) -> SecureLinear:
    given = {"holders": by_token(grid), "provider": grid.provider, "set_id": grid.set_id, "outputs": OUTPUTS, **fields}
    return SecureLinear(weight=weight, bias=bias, **given)


@pytest.mark.parametrize("rows", [1, 5])
def test_the_result_is_that_of_the_plain_layer(grid: Any, rows: int) -> None:
    x = torch.randn(rows, INPUTS, generator=MAKE, dtype=torch.float64)
    plain = torch.nn.functional.linear(x, STATE["0.weight"].double(), STATE["0.bias"].double())
    y = layer(grid)(x)
    assert y.shape == (rows, OUTPUTS)
    assert bool(((y - plain).abs() <= tolerance(x, STATE["0.weight"], 16)).all())
    assert float((y - plain).abs().max()) > 0.0  # it was not computed in the clear


def test_a_layer_without_bias_and_with_large_weights(grid: Any) -> None:
    holders = [ShareHolder(worker.address, worker.api_key) for worker in grid.workers]
    x = torch.randn(2, INPUTS, generator=MAKE) * 100
    plain = torch.nn.functional.linear(x.double(), STATE["1.weight"].double())
    y = layer(grid, "1.weight", None, holders=holders)(x)
    assert y.dtype == torch.float32
    rounding = plain.abs() * 2.0**-24
    assert bool(((y.double() - plain).abs() <= tolerance(x, STATE["1.weight"], 16) + rounding).all())


def make(grid: Any, rows: int = 1) -> Triple:
    with Provider(*grid.provider) as provider:
        return provider.make(rows, INPUTS, OUTPUTS, 2)


def mask(grid: Any, triple: Triple, shown: str | None = None, **fields: Any) -> requests.Response:
    asked = {
        "share": share_id(grid.set_id, 0),
        "weight": "0.weight",
        "provider": grid.provider[0],
        "triple": triple.id,
        "token": triple.tokens[0],
        **fields,
    }
    body = written({"x": torch.zeros(1, INPUTS, dtype=torch.int64)}, asked)
    headers = BINARY | {"X-Share-Token": shown or share_token(SECRET, grid.set_id, 0)}
    return requests.post(f"{grid.workers[0].address}/secure_linear/mask", data=body, headers=headers, timeout=30)


def test_a_triple_is_used_once(grid: Any) -> None:
    triple = make(grid)
    first = mask(grid, triple)
    assert first.status_code == 200, first.text
    again = mask(grid, triple)
    assert (again.status_code, again.json()["code"]) == (404, "not_found")
    opened = written(read(first.content), {})
    url = f"{grid.workers[0].address}/secure_linear/finish/{first.headers['Secure-Session']}"
    headers = BINARY | {"X-Share-Token": share_token(SECRET, grid.set_id, 0)}
    assert requests.post(url, data=opened, headers=BINARY, timeout=30).status_code == 404
    assert requests.post(url, data=opened, headers=headers, timeout=30).status_code == 200
    assert requests.post(url, data=opened, headers=headers, timeout=30).status_code == 404


def test_the_client_does_not_get_the_parts_of_its_triple(grid: Any) -> None:
    triple = make(grid)
    with Provider(*grid.provider) as client, pytest.raises(GridError) as refused:
        client.fetch(triple.id, 0, triple.tokens[0])
    assert refused.value.status == 404
    with Provider(grid.provider[0], "") as nobody, pytest.raises(GridError):
        nobody.fetch(triple.id, 0, triple.tokens[0])
    with Provider(grid.provider[0], grid.keys.holder) as holder:
        with pytest.raises(GridError):
            holder.fetch(triple.id, 1, triple.tokens[0])
        parts = [read(holder.fetch(triple.id, index, triple.tokens[index])) for index in range(2)]
    u, v, z = (parts[0][name] + parts[1][name] for name in ("u", "v", "z"))
    assert torch.equal(u @ v, z)


def test_what_a_holder_refuses(grid: Any) -> None:
    stranger = mask(grid, make(grid), "f" * 64)
    assert (stranger.status_code, stranger.json()["code"]) == (404, "model_not_found")
    elsewhere = mask(grid, make(grid), provider="http://169.254.169.254")
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (403, "share_peer_not_allowed")
    for wrong in ({"weight": "nothing"}, {"weight": "0.bias"}, {"token": "x"}, {"more": "y"}):
        answer = mask(grid, make(grid), **wrong)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_payload"), wrong
    other_shape = mask(grid, make(grid, rows=2))
    assert other_shape.status_code == 400
    url = f"{grid.workers[0].address}/secure_linear/mask"
    assert requests.post(url, data=b"no tensors", headers=BINARY, timeout=30).status_code == 400


@pytest.mark.parametrize(
    "asked", [{}, {"rows": 0, "inputs": 1, "outputs": 1}, {"rows": 1, "inputs": 1, "outputs": 1, "holders": 17}, []]
)
def test_a_triple_that_cannot_be_is_refused(grid: Any, asked: Any) -> None:
    headers = {"Authorization": f"Bearer {grid.keys.client}"}
    answer = requests.post(f"{grid.provider[0]}/secure_linear/triples", json=asked, headers=headers, timeout=30)
    assert answer.status_code == 400


def test_triples_need_a_key_and_have_a_size(grid: Any) -> None:
    url, asked = f"{grid.provider[0]}/secure_linear/triples", {"rows": 1, "inputs": 2**20, "outputs": 2**20}
    headers = {"Authorization": f"Bearer {grid.keys.client}"}
    assert requests.post(url, json=asked, timeout=30).status_code == 401
    assert requests.post(url, json=asked, headers=headers, timeout=30).status_code == 413
