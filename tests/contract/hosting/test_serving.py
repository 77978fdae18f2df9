"""Serving, versions, rights and deletion, the same over every store."""

import threading

import pytest

from grid_node.errors import (
    DownloadNotAllowed,
    Forbidden,
    FormatNotRunnable,
    GridError,
    IdempotencyConflict,
    InvalidModel,
    MissingKey,
    ModelExists,
    ModelFormatNotAvailable,
    ModelNotFound,
    ModelTooLarge,
    QuotaExceeded,
    Sha256Mismatch,
    VersionConflict,
)
from tests.models import ADMIN, ANN, ANYBODY, BEN, Shelf

ALL_BYTES = bytes(range(256))


def ids(shelf, **page):
    return shelf.reading.models(**page)["models"]


def details(shelf, caller=ANYBODY, **page):
    return shelf.reading.detailed(caller, **page)["models"]


def fetched(shelf, model_id="m1", caller=ANYBODY, version=None, encoding=None):
    return shelf.reading.get(caller, model_id, version, encoding, 2**20)["serialized_model"]


def test_models_are_listed_in_the_order_in_which_they_were_served(shelf):
    assert ids(shelf) == []
    for name in ("c", "a", "b"):
        shelf.serve(model_id=name)
    assert ids(shelf) == ["c", "a", "b"]
    shelf.deleting.delete(ANYBODY, "a")
    assert ids(shelf) == ["c", "b"]
    shelf.serve(model_id="a")
    assert ids(shelf) == ["c", "b", "a"]


def test_every_byte_value_survives_every_encoding(shelf):
    shelf.serve(model=ALL_BYTES, allow_download=True)
    assert fetched(shelf) == ALL_BYTES
    assert fetched(shelf, encoding="iso-8859-1").encode("iso-8859-1") == ALL_BYTES
    shelf.serve(model_id="m2", model=fetched(shelf, encoding="base64"), encoding="base64", allow_download=True)
    shelf.serve(model_id="m3", model=fetched(shelf, encoding="iso-8859-1"), allow_download=True)
    assert fetched(shelf, "m2") == fetched(shelf, "m3") == ALL_BYTES


def test_an_id_that_is_taken_leaves_the_first_model_untouched(shelf):
    shelf.serve(model=b"first", allow_download=True)
    with pytest.raises(ModelExists) as refusal:
        shelf.serve(model=b"second")
    assert refusal.value.body()["message"] == refusal.value.body()["error"] == "Model id already exists."
    assert fetched(shelf) == b"first"
    assert details(shelf)[0]["versions"] == [1]


def test_of_serves_at_the_same_moment_one_wins(shelf, tmp_path):
    answers: list[object] = []
    gate = threading.Barrier(8)

    def serve(number: int) -> None:
        other = Shelf(shelf.store, tmp_path)
        gate.wait()
        try:
            answers.append(other.serve(model=b"%d" % number, allow_download=True))
        except GridError as error:
            answers.append(error.code)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers.count("model_exists") == 7
    assert details(shelf)[0]["versions"] == [1]


def test_of_new_versions_at_the_same_moment_no_number_is_given_twice(shelf, tmp_path):
    shelf.serve()
    served: list[int] = []
    gate = threading.Barrier(6)

    def serve(number: int) -> None:
        other = Shelf(shelf.store, tmp_path)
        gate.wait()
        try:
            served.append(other.serve(model=b"%d" % number, version="new").version)
        except VersionConflict:
            served.append(0)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    given = sorted(number for number in served if number)
    assert len(served) == 6
    assert given == list(range(2, 2 + len(given)))
    assert details(shelf)[0]["versions"] == [1, *given]


def test_a_new_version_is_the_newest_and_the_old_one_stays(shelf):
    shelf.serve(model=b"one", allow_download=True)
    assert shelf.serve(model=b"two", version="new", allow_download=True).version == 2
    assert fetched(shelf) == b"two"
    assert fetched(shelf, version=1) == b"one"
    with pytest.raises(VersionConflict) as refusal:
        shelf.serve(model=b"three", version=5)
    assert refusal.value.data["version"] == 3
    assert shelf.serve(model=b"three", version=3).version == 3


def test_a_version_of_nothing_is_not_found(shelf):
    for wish in ("new", 1):
        with pytest.raises(ModelNotFound):
            shelf.serve(version=wish)


def test_numbers_are_never_used_again(shelf):
    shelf.serve()
    shelf.serve(version="new", model=b"two")
    shelf.deleting.delete(ANYBODY, "m1")
    with pytest.raises(ModelNotFound):
        shelf.serve(version="new")
    assert shelf.serve(model=b"three").version == 3
    shelf.serve(model=b"four", version="new", allow_download=True)
    shelf.deleting.delete(ANYBODY, "m1", 4)
    assert details(shelf)[0]["version"] == 3
    assert shelf.serve(model=b"five", version="new").version == 5


def test_copies_are_allowed_by_the_flag_alone(shelf):
    shelf.serve(ANN, "open", allow_download="True")
    shelf.serve(ANN, "closed", allow_download="False")
    assert shelf.reading.copy_allowed(BEN, "open") == {"success": True}
    refused = {"success": False, "error": "You're not allowed to download this model."}
    assert shelf.reading.copy_allowed(ANN, "closed") == refused
    assert shelf.reading.copy_allowed(ANN, "none") == {"success": False, "error": "Model not found."}
    assert shelf.reading.copy_allowed(ANN, "a/b") == {"success": False, "error": "Model not found."}
    with pytest.raises(DownloadNotAllowed):
        fetched(shelf, "closed", ANN)
    assert [one["sha256"] is None for one in details(shelf)] == [False, True]


def test_only_the_owner_and_an_administrator_change_a_model(shelf):
    shelf.serve(ANN)
    with pytest.raises(Forbidden):
        shelf.deleting.delete(BEN, "m1")
    with pytest.raises(MissingKey):
        shelf.deleting.delete(ANYBODY, "m1")
    with pytest.raises(Forbidden):
        shelf.serve(BEN, version="new")
    shelf.serve(ANN, version="new")
    shelf.deleting.delete(ADMIN, "m1", 2)
    shelf.deleting.delete(ANN, "m1")
    assert ids(shelf) == []


def test_what_nobody_owns_anybody_may_change(shelf):
    shelf.serve(ANYBODY)
    shelf.deleting.delete(BEN, "m1")
    with pytest.raises(ModelNotFound):
        shelf.deleting.delete(BEN, "m1")


def test_deletion_frees_the_bytes_for_the_sweep_and_the_memory(shelf):
    served = shelf.serve(model=b"once")
    needed = shelf.references([served.sha256])
    assert needed == {served.sha256}
    shelf.deleting.delete(ANYBODY, "m1")
    assert shelf.references([served.sha256]) == set()
    assert len(shelf.compute.forgotten) == 1


def test_a_quota_counts_bytes_and_versions_of_one_owner(store, tmp_path):
    shelf = Shelf(store, tmp_path, models_quota_bytes=10, models_quota_count=2, models_anonymous_quota_bytes=1)
    shelf.serve(ANN, "a", b"123456")
    with pytest.raises(QuotaExceeded) as refusal:
        shelf.serve(ANN, "b", b"12345")
    assert refusal.value.data == {"used": 6, "limit": 10}
    shelf.serve(ANN, "b", b"1")
    with pytest.raises(QuotaExceeded) as refusal:
        shelf.serve(ANN, "c", b"1")
    assert refusal.value.data == {"used": 2, "limit": 2}
    shelf.serve(BEN, "c", b"1")
    with pytest.raises(QuotaExceeded):
        shelf.serve(ANYBODY, "d", b"12")
    shelf.deleting.delete(ANN, "a")
    shelf.serve(ANN, "a", b"12345")


def test_the_same_idempotency_key_gets_the_same_answer(shelf):
    first = shelf.serve(ANN, idempotency_key="k1")
    assert shelf.serve(ANN, idempotency_key="k1") == first
    with pytest.raises(IdempotencyConflict):
        shelf.serve(ANN, model=b"others", idempotency_key="k1")
    with pytest.raises(IdempotencyConflict):
        shelf.serve(ANN, description="others", idempotency_key="k1")
    with pytest.raises(ModelExists):
        shelf.serve(BEN, idempotency_key="k1")
    assert details(shelf)[0]["versions"] == [1]
    shelf.clock.advance(86401)
    with pytest.raises(ModelExists):
        shelf.serve(ANN, idempotency_key="k1")


def test_a_key_that_is_past_its_time_may_be_used_again(shelf):
    shelf.serve(ANN, idempotency_key="k1")
    shelf.clock.advance(86401)
    second = shelf.serve(ANN, "m2", idempotency_key="k1")
    assert shelf.serve(ANN, "m2", idempotency_key="k1") == second


def test_how_the_bytes_were_coded_does_not_matter_to_the_key(shelf):
    first = shelf.serve(ANN, model=b"abc", idempotency_key="k1")
    assert shelf.serve(ANN, model="YWJj", encoding="base64", idempotency_key="k1") == first


def test_a_wrong_digest_and_a_broken_file_leave_nothing(shelf, tmp_path):
    with pytest.raises(Sha256Mismatch):
        shelf.serve(sha256="0" * 64)
    with pytest.raises(InvalidModel):
        shelf.serve(model=b"broken", format="safetensors")
    assert ids(shelf) == []
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_formats_that_the_operator_did_not_open_are_refused_before_the_bytes(shelf):
    for form in ("torchscript", "torch_export", "syft-0.9.5"):
        with pytest.raises(ModelFormatNotAvailable) as refusal:
            shelf.serve(ANN, format=form)
        assert (refusal.value.code, refusal.value.status) == ("format_not_available", 422)
    with pytest.raises(FormatNotRunnable):
        shelf.serve(format="opaque", allow_remote_inference=True)
    with pytest.raises(FormatNotRunnable):
        shelf.serve(format="safetensors", allow_remote_inference=True)


def test_code_needs_the_scope_besides_the_setting(store, tmp_path):
    shelf = Shelf(store, tmp_path, executable_formats="torchscript")
    with pytest.raises(ModelFormatNotAvailable):
        shelf.serve(ANN, format="torchscript")
    coder = type(ANN)("keycoder", frozenset({"client", "models:code"}))
    assert shelf.serve(coder, format="torchscript", allow_remote_inference=True).version == 1


def test_a_model_above_the_limit_of_a_message_is_named_by_its_address(shelf):
    shelf.serve(model_id="großes Modell", model=b"12345", allow_download=True)
    with pytest.raises(ModelTooLarge) as refusal:
        shelf.reading.get(ANYBODY, "großes Modell", None, None, 4)
    assert refusal.value.data == {
        "size": 5,
        "limit": 4,
        "download_url": "/models/gro%C3%9Fes%20Modell/content",
    }


def test_ids_are_one_in_every_normal_form(shelf):
    shelf.serve(model_id="e\u0301", allow_download=True)
    assert ids(shelf) == ["\u00e9"]
    assert fetched(shelf, "e\u0301") == b"bytes"


def test_pages_meet_without_gap(shelf):
    for number in range(5):
        shelf.serve(model_id=f"m{number}", tags=["even"] if number % 2 == 0 else [])
    assert shelf.reading.models(limit=2) == {"success": True, "models": ["m0", "m1"], "next": "m1"}
    assert shelf.reading.models(limit=3, after="m1")["next"] is None
    assert ids(shelf, after="m3") == ["m4"]
    with pytest.raises(ModelNotFound):
        ids(shelf, after="m9")
    page = shelf.reading.detailed(ANYBODY, limit=2, tag="even")
    assert ([one["id"] for one in page["models"]], page["next"]) == (["m0", "m2"], "m2")
    assert [one["id"] for one in details(shelf, after="m2", tag="even")] == ["m4"]


def test_tags_are_those_of_the_newest_version(shelf):
    shelf.serve(tags=["old", "old"])
    shelf.serve(version="new", tags=["new"])
    assert details(shelf, tag="old") == []
    assert details(shelf, tag="new")[0]["tags"] == ["new"]
    shelf.deleting.delete(ANYBODY, "m1", 2)
    assert details(shelf, tag="old")[0]["tags"] == ["old"]


def test_the_size_is_told_in_thousands_of_bytes(shelf):
    shelf.serve(model=b"x" * 12500)
    assert details(shelf)[0]["model_size"] == "12.5KB"
