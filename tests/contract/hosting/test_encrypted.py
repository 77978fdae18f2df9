"""Encrypted models on every kind of store: declared, split by the node, found, taken back, kept as a share."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from grid_client.shares import share_id, share_token
from grid_client.sharing import split
from safetensors.torch import save
from sqlalchemy import select

from grid_node.database import Store
from grid_node.errors import (
    GridError,
    IdempotencyConflict,
    InvalidModel,
    InvalidPayload,
    MissingKey,
    ModelExists,
    ModelIdNotFound,
    ModelNotFound,
    QuotaExceeded,
    SharePeerNotAllowed,
    SharePlacementFailed,
    ValueOutOfRange,
)
from grid_node.hosting.placement import LATE, Place, placements
from grid_node.hosting.rights import ModelCaller
from grid_node.hosting.schemas import load_serve
from tests.models import ANN, ANYBODY, BEN
from tests.shares import HOLDERS, KEYS, EncryptedShelf, Peers, hangs, places, refuses

SET = "0123456789abcdef" * 2
STATE = {"0.weight": torch.linspace(-2, 2, 12).reshape(3, 4), "0.bias": torch.arange(3)}
MODEL = save(STATE)
SECRET = "a secret of the client's own, long"


@pytest.fixture
def shelf(store: Store, tmp_path: Path) -> EncryptedShelf:
    return EncryptedShelf(store, tmp_path)


def declare(shelf: EncryptedShelf, model_id: str = "m1", by: ModelCaller = ANN, **fields: Any) -> Any:
    given = {"model_id": model_id, "mpc": True, "shares": places(2), **fields}
    return shelf.serving.serve(by, load_serve({name: value for name, value in given.items() if value is not None}))


def place(shelf: EncryptedShelf, model_id: str = "m1", by: ModelCaller = ANN, **fields: Any) -> Any:
    return declare(shelf, model_id, by, **{"model": MODEL, "shares": places(), **fields})


def search(shelf: EncryptedShelf, payload: Any = None, **fields: Any) -> dict[str, Any]:
    return shelf.encrypted.search(ANYBODY, {"model_id": "m1", **fields} if payload is None else payload)


def noted(shelf: EncryptedShelf) -> list[str]:
    """Shares that are being placed or taken back."""
    return sorted(shelf.store.read(lambda tx: list(tx.execute(select(placements.c.share)).scalars())))


def plaintexts(shelf: EncryptedShelf) -> list[Path]:
    return [file for file in (shelf.folder / "blobs").rglob("*") if file.is_file() and file.read_bytes() == MODEL]


# --- declared by the client


def test_a_declared_model_is_found_with_its_workers_in_order(shelf: EncryptedShelf) -> None:
    provider = {"id": "cp", "address": "http://provider.example"}
    shares = [{"worker": worker, "address": f"http://{worker}.example"} for worker in ("w2", "w1", "w3")]
    declare(shelf, shares=shares, crypto_provider=provider)
    assert search(shelf) == {"workers": ["w2", "w1", "w3"], "crypto_provider": ["cp"]}


def test_without_a_provider_the_list_of_providers_is_empty(shelf: EncryptedShelf) -> None:
    declare(shelf)
    assert search(shelf) == {"workers": ["w0", "w1"], "crypto_provider": []}


def test_details_tell_where_the_shares_are(shelf: EncryptedShelf) -> None:
    shares = [
        {"worker": "w0", "address": "HTTPS://One.example:443/", "sha256": "a" * 64},
        {"worker": "w1", "address": "http://two.example:8888/grid/"},
    ]
    declare(shelf, set=SET, shares=shares)
    assert search(shelf, details=True) == {
        "workers": ["w0", "w1"],
        "crypto_provider": [],
        "set": SET,
        "shares": [
            {"worker": "w0", "address": "https://one.example", "index": 0, "sha256": "a" * 64},
            {"worker": "w1", "address": "http://two.example:8888/grid", "index": 1, "sha256": None},
        ],
    }


def test_an_encrypted_model_is_listed_with_no_bytes(shelf: EncryptedShelf) -> None:
    declare(shelf, tags=["secret"])
    listed = shelf.reading.detailed(ANYBODY)["models"][0]
    assert (listed["mpc"], listed["size"], listed["sha256"], listed["tags"]) == (True, 0, None, ["secret"])
    with pytest.raises(GridError) as refused:
        shelf.reading.get(ANN, "m1", None, None, 2**20)
    assert refused.value.status == 403


def test_nobody_is_contacted_for_a_declared_model(shelf: EncryptedShelf) -> None:
    declare(shelf)
    shelf.deleting.delete(ANN, "m1")
    shelf.encrypted.tend()
    assert shelf.peers.keys == set()


BAD_SETS = [
    ({"shares": None}, "mpc"),
    ({"mpc": False}, "shares"),
    ({"mpc": None, "model": MODEL}, "shares"),
    ({"shares": places(1)}, "shares"),
    ({"shares": [{"worker": f"w{n}", "address": HOLDERS[0]} for n in range(17)]}, "shares"),
    ({"shares": [*places(2), places(1)[0]]}, "shares"),
    ({"shares": [*places(1), {"worker": "w1"}]}, "shares"),
    ({"shares": [*places(1), {"worker": "w1", "address": "ftp://x"}]}, "shares"),
    ({"shares": [*places(1), {"worker": "w1", "address": "http://user:word@x"}]}, "shares"),
    ({"shares": [*places(1), {"worker": "w1", "address": "http://x:99999"}]}, "shares"),
    ({"shares": [*places(1), {"worker": "w/1", "address": "http://x"}]}, "shares"),
    ({"shares": [*places(1), {"worker": "w1", "address": "http://x", "key": "k"}]}, "shares"),
    ({"allow_download": True}, "allow_download"),
    ({"allow_remote_inference": "True"}, "allow_remote_inference"),
    ({"crypto_provider": {"id": "w1", "address": "http://x"}}, "crypto_provider"),
    ({"crypto_provider": {"id": "cp"}}, "crypto_provider"),
    ({"crypto_provider": {"id": "cp", "address": "x"}}, "crypto_provider"),
    ({"precision": 33}, "precision"),
    ({"precision": -1}, "precision"),
    ({"set": "xyz"}, "set"),
    ({"format": "opaque"}, "format"),
    ({"share_token": SECRET}, "share_token"),
    ({"share_token_sha256": "a" * 64}, "share_token_sha256"),
    ({"sha256": "a" * 64}, "sha256"),
    ({"model": MODEL, "set": SET}, "set"),
    ({"model": MODEL, "shares": [one | {"sha256": "a" * 64} for one in places()]}, "shares"),
    ({"mpc": None, "shares": None, "model": MODEL, "set": SET}, "set"),
    ({"mpc": None, "shares": None, "model": MODEL, "share_token": SECRET}, "share_token"),
]


@pytest.mark.parametrize(("fields", "named"), BAD_SETS)
def test_a_set_that_cannot_be_is_refused(shelf: EncryptedShelf, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        declare(shelf, **fields)
    assert list(refused.value.data["fields"]) == [named]
    assert shelf.reading.models()["models"] == []


@pytest.mark.parametrize("payload", [None, [], "m1", {}, {"model_id": ""}, {"model_id": 7}, {"model_id": None}])
def test_a_search_for_nothing_is_invalid(shelf: EncryptedShelf, payload: Any) -> None:
    with pytest.raises(InvalidPayload) as refused:
        shelf.encrypted.search(ANYBODY, payload)
    assert refused.value.message == "Invalid payload format"


def test_unknown_plain_and_deleted_models_are_not_found(shelf: EncryptedShelf) -> None:
    shelf.serving.serve(ANYBODY, load_serve({"model_id": "plain", "model": MODEL}))
    declare(shelf)
    shelf.deleting.delete(ANN, "m1")
    for name in ("m1", "plain", "unknown", "a/b", "x" * 65, "share-" + SET + "-0"):
        with pytest.raises(ModelIdNotFound) as refused:
            search(shelf, {"model_id": name})
        assert refused.value.message == "Model ID not found!"


def test_the_newest_version_is_what_a_search_finds(shelf: EncryptedShelf) -> None:
    declare(shelf)
    declare(shelf, shares=places(3), version="new")
    assert search(shelf)["workers"] == ["w0", "w1", "w2"]
    shelf.serving.serve(ANN, load_serve({"model_id": "m1", "model": MODEL, "version": "new"}))
    with pytest.raises(ModelIdNotFound):
        search(shelf)
    shelf.deleting.delete(ANN, "m1", 3)
    assert search(shelf)["workers"] == ["w0", "w1", "w2"]


# --- split by the node


def test_a_split_model_is_at_its_holders_and_its_plaintext_nowhere(shelf: EncryptedShelf) -> None:
    place(shelf, crypto_provider={"id": "cp", "address": "http://provider.example"})
    found = search(shelf, details=True)
    assert found["workers"] == ["w0", "w1", "w2"]
    assert shelf.peers.shares == [share_id(found["set"], index) for index in range(3)]
    assert [list(shares) for shares in shelf.peers.kept.values()] == [[name] for name in shelf.peers.shares]
    back = shelf.shares_file()
    assert torch.allclose(back["0.weight"], STATE["0.weight"], atol=2**-17, rtol=0)
    assert torch.equal(back["0.bias"], STATE["0.bias"])
    assert plaintexts(shelf) == []
    assert noted(shelf) == []
    assert shelf.peers.keys == set(zip(HOLDERS, KEYS, strict=True))


def test_a_holder_gets_the_digest_of_its_token_alone(shelf: EncryptedShelf) -> None:
    import hashlib

    place(shelf, share_token=SECRET)
    name = search(shelf, details=True)["set"]
    for index, address in enumerate(HOLDERS):
        token = share_token(SECRET, name, index)
        digest = hashlib.sha256(token.encode()).hexdigest()
        assert shelf.peers.kept[address][share_id(name, index)].token_sha256 == digest


def test_shares_go_to_the_operators_peers_only(shelf: EncryptedShelf) -> None:
    strangers = [*places(2), {"worker": "w9", "address": "http://169.254.169.254"}]
    with pytest.raises(SharePeerNotAllowed):
        place(shelf, shares=strangers)
    assert shelf.peers.keys == set()
    declare(shelf, shares=strangers)


def test_placing_shares_needs_a_key(shelf: EncryptedShelf) -> None:
    with pytest.raises(MissingKey):
        place(shelf, by=ANYBODY)
    declare(shelf, by=ANYBODY)


@pytest.mark.parametrize("mood", [refuses, hangs])
def test_one_holder_that_fails_leaves_no_share_anywhere(shelf: EncryptedShelf, mood: Any) -> None:
    shelf.peers.moods[HOLDERS[1]] = mood
    if mood is hangs:
        shelf.peers.moods[HOLDERS[2]] = refuses
    with pytest.raises(SharePlacementFailed) as refused:
        place(shelf)
    assert refused.value.data["worker"] == ("w2" if mood is hangs else "w1")
    assert shelf.peers.shares == []
    assert shelf.reading.models()["models"] == []
    assert plaintexts(shelf) == []
    with pytest.raises(ModelIdNotFound):
        search(shelf)


def test_a_holder_that_is_too_slow_fails_the_placement(store: Store, tmp_path: Path) -> None:
    shelf = EncryptedShelf(store, tmp_path, share_place_timeout=0.2)
    shelf.peers.moods[HOLDERS[0]] = hangs
    with pytest.raises(SharePlacementFailed) as refused:
        place(shelf)
    assert refused.value.data["worker"] == "w0"
    assert shelf.peers.shares == []


def test_a_share_whose_holder_lost_its_answer_is_removed(shelf: EncryptedShelf) -> None:
    shelf.peers.loses_answer.add(HOLDERS[2])
    with pytest.raises(SharePlacementFailed):
        place(shelf)
    assert shelf.peers.shares == []


def test_a_share_that_appears_late_is_removed_too(shelf: EncryptedShelf) -> None:
    shelf.peers.moods[HOLDERS[2]] = refuses
    with pytest.raises(SharePlacementFailed):
        place(shelf)
    late = next(name for name in noted(shelf) if name.endswith("-2"))
    shelf.clock.advance(60)
    shelf.peers.kept[HOLDERS[2]][late] = None  # type: ignore[assignment]
    for _ in range(40):
        shelf.encrypted.tend()
        shelf.clock.advance(120)
    assert shelf.peers.shares == []
    assert noted(shelf) == []


def test_a_holder_that_is_away_is_asked_again_for_seven_days(shelf: EncryptedShelf) -> None:
    place(shelf)
    shelf.peers.away.add(HOLDERS[1])
    shelf.deleting.delete(ANN, "m1")
    with pytest.raises(ModelIdNotFound):
        search(shelf)
    shelf.encrypted.tend()
    assert len(shelf.peers.shares) == 1
    tries = 0
    while noted(shelf):
        shelf.peers.keys.clear()
        shelf.clock.advance(1800)
        shelf.encrypted.tend()
        tries += bool(shelf.peers.keys)
        assert tries < 400
    assert 84 <= tries <= 340  # at first often, then once an hour
    assert len(shelf.peers.shares) == 1


def test_a_holder_that_comes_back_is_cleared(shelf: EncryptedShelf) -> None:
    place(shelf)
    shelf.peers.away.add(HOLDERS[1])
    shelf.deleting.delete(ANN, "m1")
    shelf.encrypted.tend()
    shelf.peers.away.clear()
    shelf.encrypted.tend()  # not yet due again
    assert len(shelf.peers.shares) == 1
    shelf.clock.advance(20)
    shelf.encrypted.tend()
    assert shelf.peers.shares == []
    assert noted(shelf) == []


def test_a_refused_deletion_takes_nothing_back(shelf: EncryptedShelf) -> None:
    place(shelf)
    for caller in (BEN, ANYBODY):
        with pytest.raises(GridError):
            shelf.deleting.delete(caller, "m1")
    shelf.encrypted.tend()
    assert len(shelf.peers.shares) == 3
    assert noted(shelf) == []


def test_deleting_one_version_takes_back_its_shares_alone(shelf: EncryptedShelf) -> None:
    place(shelf)
    first = shelf.peers.shares
    place(shelf, version="new")
    shelf.deleting.delete(ANN, "m1", 2)
    shelf.encrypted.tend()
    assert shelf.peers.shares == first
    assert search(shelf, details=True)["set"] in first[0]


def test_a_crash_while_placing_is_cleared_up_after_its_time(shelf: EncryptedShelf) -> None:
    """What a killed process leaves behind: the note, and some of the shares."""
    where = [Place(one["worker"], one["address"]) for one in places()]
    shelf.placing.note(SET, where, 600.0)
    shelf.peers.kept[HOLDERS[0]][share_id(SET, 0)] = None  # type: ignore[assignment]
    shelf.clock.advance(600)
    shelf.encrypted.tend()
    assert len(shelf.peers.shares) == 1
    shelf.clock.advance(600)
    shelf.encrypted.tend()
    assert shelf.peers.shares == []
    shelf.clock.advance(2 * LATE)
    shelf.encrypted.tend()
    assert noted(shelf) == []


def test_a_placement_that_was_taken_back_meanwhile_is_not_published(shelf: EncryptedShelf) -> None:
    def sleeps(_stop: Any) -> None:
        shelf.peers.moods.clear()
        shelf.clock.advance(10_000)
        shelf.encrypted.tend()

    shelf.peers.moods[HOLDERS[0]] = sleeps
    with pytest.raises(SharePlacementFailed):
        place(shelf)
    assert shelf.peers.shares == []
    assert shelf.reading.models()["models"] == []


def test_two_processes_remove_a_share_once(shelf: EncryptedShelf, store: Store, tmp_path: Path) -> None:
    other = EncryptedShelf(store, tmp_path / "other", shelf.clock)
    place(shelf)
    asked: list[str] = []

    class Counting(Peers):
        def peer(self, address: str, key: str) -> Any:
            asked.append(address)
            return super().peer(address, key)

    for one in (shelf, other):
        one.placing._peer = Counting(kept=shelf.peers.kept).peer
    shelf.deleting.delete(ANN, "m1")
    threads = [threading.Thread(target=one.encrypted.tend) for one in (shelf, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(asked) == HOLDERS


def test_the_loser_of_a_race_for_an_id_takes_its_shares_back(shelf: EncryptedShelf) -> None:
    def overtaken(_stop: Any) -> None:
        shelf.peers.moods.clear()
        shelf.serving.serve(BEN, load_serve({"model_id": "m1", "model": b"opaque", "format": "opaque"}))

    shelf.peers.moods[HOLDERS[0]] = overtaken
    with pytest.raises(ModelExists):
        place(shelf)
    assert shelf.peers.shares == []
    assert noted(shelf) == []
    assert plaintexts(shelf) == []


def test_a_taken_id_is_refused_before_anything_is_placed(shelf: EncryptedShelf) -> None:
    declare(shelf)
    with pytest.raises(ModelExists):
        place(shelf)
    assert shelf.peers.keys == set()


def test_a_repeated_request_is_answered_and_not_done_again(shelf: EncryptedShelf) -> None:
    first = place(shelf, idempotency_key="k1")
    held = shelf.peers.shares
    assert place(shelf, idempotency_key="k1") == first
    assert shelf.peers.shares == held
    with pytest.raises(IdempotencyConflict):
        place(shelf, idempotency_key="k1", precision=8)
    assert shelf.peers.shares == held
    assert plaintexts(shelf) == []


def test_a_model_that_cannot_be_shared_is_refused(shelf: EncryptedShelf) -> None:
    with pytest.raises(ValueOutOfRange) as refused:
        place(shelf, model=save({"ok": torch.ones(1), "bad": torch.tensor([float("nan")])}))
    assert refused.value.data["tensor"] == "bad"
    with pytest.raises(InvalidModel):
        place(shelf, model=b"no tensors at all")
    assert shelf.peers.keys == set()
    assert noted(shelf) == []


# --- as a holder


def keep(shelf: EncryptedShelf, share: bytes, model_id: str, by: ModelCaller = ANN, **fields: Any) -> Any:
    given = {"model_id": model_id, "model": share, "format": "share", **fields}
    return shelf.serving.serve(by, load_serve(given))


def fetched(shelf: EncryptedShelf, model_id: str, by: ModelCaller) -> Any:
    return shelf.reading.get(by, model_id, None, None, 2**20)["serialized_model"]


def test_a_share_exists_for_the_key_that_placed_it(shelf: EncryptedShelf) -> None:
    share = split(STATE, 2, set_id=SET)[1]
    name = share_id(SET, 1)
    keep(shelf, share, name)
    assert fetched(shelf, name, ANN) == share
    for stranger in (BEN, ANYBODY, ModelCaller("keyadmin", frozenset({"models:admin"}))):
        with pytest.raises(ModelNotFound):
            fetched(shelf, name, stranger)
        with pytest.raises(ModelNotFound):
            shelf.deleting.delete(stranger, name)
        assert shelf.reading.copy_allowed(stranger, name) == {"success": False, "error": "Model not found."}
        assert shelf.reading.detailed(stranger)["models"] == []
    assert shelf.reading.models()["models"] == []
    assert [one["id"] for one in shelf.reading.detailed(ANN)["models"]] == [name]
    shelf.deleting.delete(ANN, name)
    with pytest.raises(ModelNotFound):
        fetched(shelf, name, ANN)


def test_a_token_reads_its_share_and_changes_nothing(shelf: EncryptedShelf) -> None:
    import hashlib

    share = split(STATE, 2, set_id=SET)[0]
    name = share_id(SET, 0)
    token, other = share_token(SECRET, SET, 0), share_token(SECRET, SET, 1)
    keep(shelf, share, name, share_token_sha256=hashlib.sha256(token.encode()).hexdigest())
    assert fetched(shelf, name, ModelCaller(token=token)) == share
    assert fetched(shelf, name, ModelCaller("keyben00", token=token)) == share
    for wrong in (other, "", token.upper(), "\ud800"):
        with pytest.raises(ModelNotFound):
            fetched(shelf, name, ModelCaller(token=wrong))
    with pytest.raises(ModelNotFound):
        shelf.deleting.delete(ModelCaller(token=token), name)


def test_a_share_is_what_its_id_says(shelf: EncryptedShelf) -> None:
    share = split(STATE, 2, set_id=SET)[0]
    for wrong in (share_id(SET, 1), share_id("f" * 32, 0), "m1"):
        with pytest.raises(InvalidPayload) as refused:
            keep(shelf, share, wrong)
        assert list(refused.value.data["fields"]) == ["model_id"]
    for no_share in (MODEL, share[:-1], b"x", save({"w": torch.zeros(1, dtype=torch.int64)})):
        with pytest.raises(InvalidModel):
            keep(shelf, no_share, share_id(SET, 0))


def test_keeping_a_share_needs_a_key_and_happens_once(shelf: EncryptedShelf) -> None:
    share, name = split(STATE, 2, set_id=SET)[0], share_id(SET, 0)
    with pytest.raises(MissingKey):
        keep(shelf, share, name, by=ANYBODY)
    keep(shelf, share, name)
    with pytest.raises(ModelExists):
        keep(shelf, share, name)
    with pytest.raises(InvalidPayload):
        keep(shelf, share, name, version="new")


def test_a_share_counts_for_the_quota_of_its_key(store: Store, tmp_path: Path) -> None:
    shelf = EncryptedShelf(store, tmp_path, models_quota_bytes=900)
    first, second = split({"w": torch.zeros(100)}, 2, set_id=SET)
    with pytest.raises(QuotaExceeded):
        keep(shelf, first, share_id(SET, 0))
    shelf = EncryptedShelf(store, tmp_path, models_quota_bytes=1500)
    keep(shelf, first, share_id(SET, 0))
    with pytest.raises(QuotaExceeded):
        keep(shelf, second, share_id(SET, 1))
