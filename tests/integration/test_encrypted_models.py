"""Encrypted models over four real nodes: three holders, and the node that knows where the shares are."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import torch
from grid_client.encrypted import EncryptedModels, Worker
from grid_client.errors import GridError, HashMismatch
from grid_client.shares import share_id, share_token
from grid_client.sharing import ValueOutOfRange, reconstruct, split
from safetensors.torch import save

from tests.nodes import LiveNode, until

SECRET = "a secret of the client's own, long"
PROVIDER = ("cp", "http://provider.example")
STATE = {
    "w": torch.randn(64, 33, generator=torch.Generator().manual_seed(3)),
    "half": torch.tensor([0.1, -65504.0], dtype=torch.float16),
    "step": torch.tensor(12),
    "on": torch.tensor([True, False]),
}
MODEL = save(STATE)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`holders`, `home`, the keys of a client at each, and the home's keys at the holders."""
    folder = tmp_path_factory.mktemp("encrypted")
    quiet = {"scoring_processes": 0, "compute_processes": 0}
    holders = [LiveNode(folder / f"holder{number}", models_auth="write", **quiet) for number in range(3)]
    peers = [holder.add_key("home") for holder in holders]
    named = ",".join(f"{holder.url}={key}" for holder, key in zip(holders, peers, strict=True))
    home = LiveNode(folder / "home", models_auth="write", share_peers=named, share_place_timeout=15.0, **quiet)
    nodes = [*holders, home]
    try:
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(LiveNode.start, nodes))
        yield SimpleNamespace(
            holders=holders,
            home=home,
            peers=peers,
            key=home.add_key("client"),
            workers=[
                Worker(f"w{number}", holder.url, holder.add_key("client")) for number, holder in enumerate(holders)
            ],
        )
    finally:
        for node in nodes:
            node.discard()


@pytest.fixture
def client(grid: Any) -> Iterator[EncryptedModels]:
    with EncryptedModels(grid.home.url, grid.key) as client:
        yield client


def listed(node: LiveNode, key: str) -> list[str]:
    """What the key sees at the node, shares included."""
    answer = requests.get(f"{node.url}/detailed_models_list", headers=bearer(key), timeout=30)
    return [one["id"] for one in answer.json()["models"]]


def held(grid: Any) -> list[list[str]]:
    """Shares that the home placed, by holder."""
    return [listed(holder, key) for holder, key in zip(grid.holders, grid.peers, strict=True)]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def search(grid: Any, body: Any) -> requests.Response:
    return requests.post(f"{grid.home.url}/search-encrypted-models", data=body, timeout=30)


def places(grid: Any) -> list[dict[str, str]]:
    return [{"worker": worker.id, "address": worker.address} for worker in grid.workers]


def serve(grid: Any, model: bytes = MODEL, key: str | None = None, **fields: Any) -> requests.Response:
    """`/serve_model` by multipart, for the home to split."""
    given = {"mpc": True, "shares": places(grid), **fields}
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    form |= {"mpc": "True"}
    headers = bearer(grid.key if key is None else key)
    files = {"model": ("model", model)}
    return requests.post(f"{grid.home.url}/serve_model", data=form, files=files, headers=headers, timeout=60)


def assert_same(back: dict[str, torch.Tensor]) -> None:
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in back.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in STATE.items()
    }
    for name in ("w", "half"):
        assert float((back[name].double() - STATE[name].double()).abs().max()) < 2**-16
    assert torch.equal(back["step"], STATE["step"])
    assert torch.equal(back["on"], STATE["on"])


def share(set_id: str, grid: Any, holder: int, index: int, headers: dict[str, str]) -> requests.Response:
    url = f"{grid.holders[holder].url}/models/{share_id(set_id, index)}/content"
    return requests.get(url, headers=headers, timeout=30)


# --- the client splits


def test_what_a_client_shares_out_its_owner_reconstructs(grid: Any, client: EncryptedModels) -> None:
    client.serve("mine", STATE, grid.workers, crypto_provider=PROVIDER, tags=["secret"])
    answer = search(grid, b'{"model_id": "mine"}')
    assert answer.json() == {"workers": ["w0", "w1", "w2"], "crypto_provider": ["cp"]}
    assert_same(client.fetch("mine", {worker.id: worker.api_key for worker in grid.workers}))
    client.delete("mine", grid.workers)
    assert search(grid, b'{"model_id": "mine"}').status_code == 404
    assert [listed(holder, worker.api_key) for holder, worker in zip(grid.holders, grid.workers, strict=True)] == [
        [],
        [],
        [],
    ]


def test_a_token_reads_a_share_at_its_holder_and_another_key_does_not(grid: Any, client: EncryptedModels) -> None:
    set_id = client.serve("tokens", STATE, grid.workers, share_token=SECRET)
    stranger = bearer(grid.holders[0].add_key("stranger"))
    token = share_token(SECRET, set_id, 0)
    assert share(set_id, grid, 0, 0, stranger).status_code == 404
    assert share(set_id, grid, 0, 0, {}).json()["error"] == "Model not found."
    assert share(set_id, grid, 0, 0, {"X-Share-Token": token}).status_code == 200
    assert share(set_id, grid, 0, 0, {"X-Share-Token": share_token(SECRET, set_id, 1)}).status_code == 404
    assert share(set_id, grid, 1, 1, {"X-Share-Token": token}).status_code == 404
    assert_same(client.fetch("tokens", share_token=SECRET))
    body = {"model_id": share_id(set_id, 0), "share_token": token, "encoding": "base64"}
    by_field = requests.get(f"{grid.holders[0].url}/get_model/{body.pop('model_id')}", params=body, timeout=30)
    assert by_field.status_code == 200
    client.delete("tokens", grid.workers)


def test_a_set_that_cannot_be_registered_is_taken_back(grid: Any, client: EncryptedModels) -> None:
    client.serve("taken", STATE, grid.workers[:2])
    before = [listed(holder, worker.api_key) for holder, worker in zip(grid.holders, grid.workers, strict=True)]
    with pytest.raises(GridError) as refused:
        client.serve("taken", STATE, grid.workers)
    assert refused.value.code == "model_exists"
    after = [listed(holder, worker.api_key) for holder, worker in zip(grid.holders, grid.workers, strict=True)]
    assert after == before
    client.delete("taken", grid.workers)


def test_a_holder_that_refuses_fails_the_whole(grid: Any, client: EncryptedModels) -> None:
    locked_out = Worker("w9", grid.holders[2].url, "")
    with pytest.raises(GridError) as refused:
        client.serve("partly", STATE, [*grid.workers[:2], locked_out])
    assert refused.value.code == "missing_key"
    assert listed(grid.holders[0], grid.workers[0].api_key) == []
    assert search(grid, b'{"model_id": "partly"}').status_code == 404


def test_a_share_that_is_not_the_one_placed_is_noticed(grid: Any, client: EncryptedModels) -> None:
    set_id = client.serve("swapped", STATE, grid.workers)
    name, key = share_id(set_id, 1), grid.workers[1].api_key
    url, headers = grid.holders[1].url, bearer(key)
    other = split({"w": torch.zeros(64, 33)}, 3, set_id=set_id)[1]
    requests.post(f"{url}/delete_model", json={"model_id": name}, headers=headers, timeout=30)
    form = {"model_id": name, "format": "share"}
    placed = requests.post(f"{url}/serve_model", data=form, files={"model": other}, headers=headers, timeout=30)
    assert placed.status_code == 200, placed.text
    with pytest.raises(HashMismatch):
        client.fetch("swapped", {worker.id: worker.api_key for worker in grid.workers})
    client.delete("swapped", grid.workers)


def test_a_model_with_nan_goes_nowhere(grid: Any, client: EncryptedModels) -> None:
    with pytest.raises(ValueOutOfRange):
        client.serve("nan", {"w": torch.tensor([float("nan")])}, grid.workers)


# --- the node splits


def test_the_node_splits_places_and_forgets(grid: Any, client: EncryptedModels) -> None:
    provider = {"id": "cp", "address": "http://provider.example"}
    answer = serve(grid, model_id="ours", crypto_provider=provider, share_token=SECRET)
    assert (answer.status_code, answer.json()) == (200, {"success": True, "message": "Model saved with id: ours"})
    found = client.find("ours")
    assert (found.workers, found.crypto_provider) == (["w0", "w1", "w2"], ["cp"])
    assert found.set_id is not None
    assert held(grid) == [[share_id(found.set_id, index)] for index in range(3)]
    assert_same(client.fetch("ours", share_token=SECRET))
    files = [file for file in grid.home.data.rglob("*") if file.is_file() and "blobs" in file.parts]
    assert hashlib.sha256(MODEL).hexdigest() not in {file.name for file in files}
    assert MODEL[-4096:] not in b"".join(file.read_bytes() for file in files)
    deleted = requests.post(
        f"{grid.home.url}/delete_model", json={"model_id": "ours"}, headers=bearer(grid.key), timeout=30
    )
    assert deleted.status_code == 200
    until(lambda: held(grid) == [[], [], []])


def test_shares_that_a_client_adds_are_shares_of_the_sum(grid: Any, client: EncryptedModels) -> None:
    from grid_client.sharing import add

    sets = [split(STATE, 3) for _ in range(2)]
    back = reconstruct([add(one, other) for one, other in zip(*sets, strict=True)])
    assert float((back["w"] - 2 * STATE["w"]).abs().max()) <= 2**-15


def test_a_holder_that_is_down_leaves_no_share_and_no_model(grid: Any) -> None:
    grid.holders[1].kill()
    try:
        answer = serve(grid, model_id="failed")
        assert answer.status_code == 504, answer.text
        body = answer.json()
        assert (body["code"], body["worker"]) == ("share_placement_failed", "w1")
        assert search(grid, b'{"model_id": "failed"}').json()["error"] == "Model ID not found!"
        assert [listed(grid.holders[number], grid.peers[number]) for number in (0, 2)] == [[], []]
    finally:
        grid.holders[1].start()
    assert held(grid) == [[], [], []]
    blobs = [file for file in grid.home.data.rglob("*") if file.is_file() and "blobs" in file.parts]
    assert hashlib.sha256(MODEL).hexdigest() not in {file.name for file in blobs}


def test_a_deletion_reaches_a_holder_that_was_away(grid: Any) -> None:
    assert serve(grid, model_id="away").status_code == 200
    grid.holders[2].kill()
    answer = requests.post(
        f"{grid.home.url}/delete_model", json={"model_id": "away"}, headers=bearer(grid.key), timeout=30
    )
    assert answer.status_code == 200
    grid.home.kill()
    grid.home.start()
    grid.holders[2].start()
    until(lambda: held(grid) == [[], [], []], 60)


def test_refusals_of_the_node_that_splits(grid: Any) -> None:
    elsewhere = [*places(grid)[:2], {"worker": "w9", "address": "http://127.0.0.1:1"}]
    assert serve(grid, model_id="bad", shares=elsewhere).json()["code"] == "share_peer_not_allowed"
    answer = serve(grid, save({"w": torch.tensor([float("inf")])}), model_id="bad")
    assert (answer.status_code, answer.json()["code"], answer.json()["tensor"]) == (422, "value_out_of_range", "w")
    assert serve(grid, b"not a model at all", model_id="bad").json()["code"] == "invalid_model"
    assert serve(grid, model_id="bad", key="").status_code == 401
    assert held(grid) == [[], [], []]


# --- search


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"{}", b'{"model_id": ""}', b'{"model_id": 3}'])
def test_a_search_for_nothing_is_invalid(grid: Any, body: bytes) -> None:
    answer = search(grid, body)
    assert (answer.status_code, answer.json()["error"]) == (400, "Invalid payload format")


def test_searches_that_find_nothing_say_so(grid: Any) -> None:
    plain = requests.post(
        f"{grid.home.url}/serve_model", data={"model_id": "plain"}, files={"model": MODEL}, headers=bearer(grid.key)
    )
    assert plain.status_code == 200
    for name in ("unknown", "plain"):
        answer = search(grid, json.dumps({"model_id": name}))
        assert (answer.status_code, answer.json()["error"]) == (404, "Model ID not found!")


def test_a_model_without_a_provider_is_found_with_none(grid: Any) -> None:
    asked = {"model_id": "alone", "mpc": True, "shares": places(grid)[:2]}
    answer = requests.post(f"{grid.home.url}/serve_model", json=asked, headers=bearer(grid.key), timeout=30)
    assert answer.status_code == 200, answer.text
    assert search(grid, b'{"model_id": "alone"}').json() == {"workers": ["w0", "w1"], "crypto_provider": []}


def test_no_key_and_no_token_is_in_any_log(grid: Any) -> None:
    logs = "".join(node.log_text() for node in [*grid.holders, grid.home])
    for secret in (SECRET, grid.key, *grid.peers, *(worker.api_key for worker in grid.workers)):
        assert secret not in logs


def test_nothing_of_splitting_is_left_on_the_disk(grid: Any) -> None:
    folder: Path = grid.home.data / "splitting"
    assert list(folder.iterdir()) == []
