"""Registered models from the side of their owners, over every store."""

import base64
import json
import logging
import re
import threading
from hashlib import sha256

import pytest

from grid_node.clock import ManualClock, SystemClock
from grid_node.errors import (
    BadCursor,
    BodyTooLarge,
    InvalidSignature,
    ModelBusy,
    ModelChanged,
    ModelLimit,
    ModelNameTaken,
    ModelNotFound,
    RunnerIdempotencyConflict,
    RunnerInvalidJson,
    TryAgain,
    TunnelProviderFailed,
)
from grid_node.runners import models, provisioning
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.prediction import CANCELED, PROCESSING, QUEUED
from tests.booth import ANNA, BERT
from tests.registrar import SEED, Registrar
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

UNKNOWN = "m-" + "z" * 20


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def desk(store, clock):
    return Registrar(store, clock)


class Died(BaseException):
    """The process is gone: nothing of it runs any more."""


@pytest.fixture
def die_at(desk, monkeypatch):
    """Names the operation of the provider at which the process dies, or None."""
    monkeypatch.setattr(provisioning.Provisioning, "_undo", lambda self, id: None)

    def choose(chosen):
        def die(operation, id):
            if operation == chosen:
                raise Died

        desk.provider.before = die

    return choose


def changed(**validation):
    """The seed's document with another rule for `steps`."""
    document = json.loads(json.dumps(SEED))
    document["inputs"][2]["validation"] |= validation
    return document


def named(name, **members):
    return {**SEED, "name": name, **members}


def fields_of(desk, document):
    with pytest.raises(InvalidSignature) as caught:
        desk.registration.create(ANNA, document)
    return caught.value.data["fields"]


def listing(desk, caller=ANNA, **page):
    return desk.registration.models(caller, **page)


# --- create -------------------------------------------------------------------------------------------------------


def test_a_registration_answers_what_an_agent_runs_with(desk):
    made = desk.registration.create(ANNA, SEED)

    assert list(made) == ["id", "credential", "config"]
    assert re.fullmatch(r"m-[a-z2-7]{20}", made["id"])
    credential = made["credential"]
    assert list(credential) == ["AccountTag", "TunnelID", "TunnelName", "TunnelSecret", "token"]
    said = json.loads(base64.b64decode(credential["token"]))
    assert said == {"a": credential["AccountTag"], "t": credential["TunnelID"], "s": credential["TunnelSecret"]}
    assert credential["TunnelName"] == made["id"]
    assert made["config"] == {
        "tunnel": credential["TunnelID"],
        "credentials-file": "tunnel_credential.json",
        "ingress": [
            {"hostname": f"{made['id']}.runners.localhost", "service": "http://localhost:3009"},
            {"service": "http_status:404"},
        ],
    }


def test_the_tunnel_and_its_name_are_there_when_the_registration_is_answered(desk):
    made = desk.registration.create(ANNA, SEED)

    assert list(desk.provider.tunnels) == [made["id"]]
    assert desk.provider.hostnames == {made["id"]: f"{made['credential']['TunnelID']}.cfargotunnel.com"}
    assert desk.row(made["id"]).state == "ready"


def test_the_whole_answer_of_the_provider_is_kept_and_can_only_be_read_with_the_key(desk):
    made = desk.registration.create(ANNA, SEED)

    row = desk.row(made["id"])
    kept = json.loads(desk.box.open(row.envelope))
    assert kept == {"success": True, "errors": [], "messages": [], "result": desk.provider.tunnels[made["id"]]}
    assert row.secret_hash == sha256(made["credential"]["token"].encode()).hexdigest()
    assert made["credential"]["TunnelSecret"] not in str(row)
    assert made["credential"]["token"] not in str(row)


def test_the_document_is_given_back_as_it_came(desk):
    document = {**SEED, "note": {"ä\u0000": [1.50, 10**30, None]}, "id": "mine"}

    made = desk.registration.create(ANNA, document)
    found, _etag = desk.registration.get(ANNA, made["id"])

    assert {name: found[name] for name in document if name != "id"} == {**SEED, "note": document["note"]}
    assert found["id"] == made["id"]


@pytest.mark.parametrize("member", ["name", "model_name"])
def test_a_model_has_the_name_that_its_owner_gives_it(desk, member):
    made = desk.registration.create(ANNA, {**SEED, member: "paint-2.x"})

    assert desk.registration.get(ANNA, made["id"])[0]["name"] == "paint-2.x"


def test_a_model_without_a_name_goes_by_its_id(desk):
    made = desk.registration.create(ANNA, SEED)

    assert desk.row(made["id"]).name == made["id"]


@pytest.mark.parametrize(
    "name", ["", "A", "-a", ".", "a b", "a/b", "a" * 64, "a\n", "ä", 7, True, ["a"], "m-abcdefghijklmnop2345"]
)
def test_a_name_that_cannot_stand_in_an_address_is_refused(desk, name):
    assert list(fields_of(desk, named(name))) == ["name"]
    assert desk.rows() == []


def test_everything_that_is_wrong_with_a_document_is_told_at_once(desk):
    document = {**changed(le="x"), "name": "A", "visibility": "secret", "outputs": "int64"}

    fields = fields_of(desk, document)

    assert fields["inputs.2.validation.le"] == ["Not a valid integer."]
    assert set(fields) == {"inputs.2.validation.le", "outputs", "name", "visibility"}


def test_two_names_that_differ_are_refused(desk):
    assert fields_of(desk, {**SEED, "name": "a", "model_name": "b"}) == {"model_name": ["Differs from name."]}


def test_how_a_model_does_generation_tasks_is_checked_and_kept(desk):
    wrong = fields_of(desk, {**SEED, "generation": {"prompt_input": "steps"}})
    made = desk.registration.create(ANNA, {**SEED, "generation": {"prompt_input": "prompt", "inputs": {"seed": "3"}}})

    assert all(name.startswith("generation") for name in wrong)
    kept = json.loads(desk.row(made["id"]).generation)
    assert kept == {"prompt_input": "prompt", "inputs": {"seed": 3}, "output_index": 0}


def test_the_kind_of_a_models_tasks_is_one_that_the_node_knows(desk):
    def plan(kind):
        return {"generation": {"prompt_input": "prompt", "inputs": {"seed": 3}, "task_kind": kind}}

    made = desk.registration.create(ANNA, {**SEED, **plan("text_to_3d")})["id"]
    assert json.loads(desk.row(made).generation)["task_kind"] == "text_to_3d"

    unknown = {"generation.task_kind": ["Must be one of: cog, text_to_3d."]}
    assert fields_of(desk, {**SEED, **plan("text_to_music")}) == unknown
    for change in (
        lambda: desk.registration.replace(ANNA, made, {**SEED, **plan("text_to_music")}),
        lambda: desk.registration.patch(ANNA, made, plan("text_to_music")),
    ):
        with pytest.raises(InvalidSignature) as caught:
            change()
        assert caught.value.data["fields"] == unknown
    assert json.loads(desk.row(made).generation)["task_kind"] == "text_to_3d"


@pytest.mark.parametrize("document", [None, [], "x", 1, [SEED]])
def test_what_is_no_object_is_no_registration(desk, document):
    with pytest.raises(RunnerInvalidJson):
        desk.registration.create(ANNA, document)


def test_a_document_above_the_limit_is_refused_whichever_way_it_came(store, clock):
    desk = Registrar(store, clock, signature_max_bytes=2000)
    room = 2000 - len(json.dumps({**SEED, "note": ""}, separators=(",", ":")))

    desk.registration.create(ANNA, {**SEED, "note": "é" * (room // 2)})
    with pytest.raises(BodyTooLarge) as refusal:
        desk.registration.create(ANNA, {**SEED, "note": "é" * (room // 2 + 1)})

    assert refusal.value.body()["error"] == "Body is larger than 2000 bytes."


def test_a_name_is_given_once_for_each_owner(desk):
    desk.registration.create(ANNA, named("paint"))
    desk.registration.create(BERT, named("paint"))

    with pytest.raises(ModelNameTaken):
        desk.registration.create(ANNA, named("paint"))

    assert len(desk.provider.tunnels) == 2


def test_an_owner_has_so_many_models_and_no_more_until_one_goes(store, clock):
    desk = Registrar(store, clock, models_per_owner=2)
    first = desk.registration.create(ANNA, SEED)["id"]
    desk.registration.create(ANNA, SEED)
    desk.registration.create(BERT, SEED)

    with pytest.raises(ModelLimit):
        desk.registration.create(ANNA, SEED)
    desk.registration.delete(ANNA, first)
    desk.registration.create(ANNA, SEED)

    assert len(desk.provider.tunnels) == 3


def test_registrations_that_failed_do_not_count(store, clock):
    desk = Registrar(store, clock, models_per_owner=2)
    desk.provider.failing = {"create_tunnel", "delete"}
    for _ in range(3):
        with pytest.raises(TunnelProviderFailed):
            desk.registration.create(ANNA, SEED)
    desk.provider.failing = set()

    desk.registration.create(ANNA, SEED)
    desk.registration.create(ANNA, SEED)

    assert [row.state for row in desk.rows()].count("ready") == 2


def test_owners_who_register_at_the_same_time_do_not_get_beyond_the_limit_or_share_a_name(store):
    desk = Registrar(store, SystemClock(), models_per_owner=5)
    refused = []

    def register(number):
        try:
            desk.registration.create(ANNA, named(f"paint-{number % 6}"))
        except (ModelLimit, ModelNameTaken) as error:
            refused.append(error)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(desk.rows()) == len(desk.provider.tunnels) == 5
    assert len({row.name for row in desk.rows()}) == 5
    assert len(refused) == 7


# --- the same request again -----------------------------------------------------------------------------------------


def test_a_request_that_is_sent_again_gets_the_first_answer(desk):
    first = desk.registration.create(ANNA, SEED, "key-1")
    again = desk.registration.create(ANNA, dict(reversed(SEED.items())), "key-1")

    assert again == first
    assert len(desk.rows()) == 1


def test_a_key_is_good_for_one_body_of_one_owner(desk):
    first = desk.registration.create(ANNA, SEED, "key-1")["id"]

    with pytest.raises(RunnerIdempotencyConflict):
        desk.registration.create(ANNA, changed(le="900"), "key-1")
    assert desk.registration.create(BERT, SEED, "key-1")["id"] != first
    assert desk.registration.create(ANNA, SEED, "key-2")["id"] != first


def test_a_key_counts_for_a_day(desk, clock):
    first = desk.registration.create(ANNA, SEED, "key-1")
    clock.advance(86401)

    assert desk.registration.create(ANNA, SEED, "key-1") != first


def test_a_request_that_failed_is_done_anew(desk):
    desk.provider.failing = {"create_tunnel"}
    with pytest.raises(TunnelProviderFailed):
        desk.registration.create(ANNA, named("paint"), "key-1")
    desk.provider.failing = set()

    made = desk.registration.create(ANNA, named("paint"), "key-1")

    assert desk.row(made["id"]).name == "paint"


def test_a_request_whose_model_was_deleted_is_done_anew(desk):
    first = desk.registration.create(ANNA, named("paint"), "key-1")["id"]
    other = desk.registration.create(ANNA, SEED, "key-2")
    desk.registration.delete(ANNA, first)

    again = desk.registration.create(ANNA, named("paint"), "key-1")["id"]

    assert again != first
    assert desk.row(again).name == "paint"
    assert desk.registration.create(ANNA, SEED, "key-2") == other


def test_a_request_that_comes_while_the_first_is_at_work_waits_for_it(desk):
    answers = []
    during = threading.Event()

    def again(operation, id):
        desk.provider.before = lambda operation, id: None
        thread = threading.Thread(target=lambda: answers.append(desk.registration.create(ANNA, SEED, "key-1")))
        desk.slept = during.set
        thread.start()
        assert during.wait(10)
        threads.append(thread)

    threads = []
    desk.provider.before = again

    first = desk.registration.create(ANNA, SEED, "key-1")
    threads[0].join(10)

    assert answers == [first]


def test_requests_with_one_key_at_the_same_time_make_one_model(store):
    desk = Registrar(store, SystemClock())
    answers = []

    def register():
        answers.append(desk.registration.create(ANNA, named("paint"), "key-1"))

    threads = [threading.Thread(target=register) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == answers[:1] * 6
    assert len(desk.rows()) == len(desk.provider.tunnels) == 1


def test_a_request_whose_first_one_died_at_work_is_told_to_come_again(desk, die_at):
    die_at("create_tunnel")
    with pytest.raises(Died):
        desk.registration.create(ANNA, SEED, "key-1")
    die_at(None)

    with pytest.raises(TryAgain):
        desk.registration.create(ANNA, SEED, "key-1")


# --- change -------------------------------------------------------------------------------------------------------


def test_a_new_document_changes_the_version_and_keeps_id_and_tunnel(desk):
    made = desk.registration.create(ANNA, SEED)
    before = desk.row(made["id"])

    answer = desk.registration.replace(ANNA, made["id"], changed(le="900"))

    after = desk.row(made["id"])
    assert answer == made
    assert after.version != before.version
    assert (after.tunnel_id, after.secret_hash, after.envelope) == (
        before.tunnel_id,
        before.secret_hash,
        before.envelope,
    )
    assert [operation for operation, _ in desk.provider.asked] == ["create_tunnel", "create_hostname"]


def test_a_whole_new_document_is_all_that_holds(desk):
    made = desk.registration.create(ANNA, named("paint", visibility="public"))

    desk.registration.replace(ANNA, made["id"], SEED)

    found, _etag = desk.registration.get(ANNA, made["id"])
    assert (found["name"], found["visibility"]) == (made["id"], "private")


def test_a_patch_changes_what_it_names_and_nothing_else(desk):
    made = desk.registration.create(ANNA, named("paint", visibility="public", note={"a": 1, "b": 2}))

    answer = desk.registration.patch(
        ANNA, made["id"], {"note": {"a": None, "c": [3]}, "inputs": changed(le="90")["inputs"]}
    )

    found, _etag = desk.registration.get(ANNA, made["id"])
    assert answer == made
    assert (found["name"], found["visibility"], found["note"]) == ("paint", "public", {"b": 2, "c": [3]})
    assert found["inputs"][2]["validation"]["le"] == "90"


def test_a_patch_can_take_the_name_away(desk):
    made = desk.registration.create(ANNA, named("paint"))

    desk.registration.patch(ANNA, made["id"], {"name": None})

    assert desk.row(made["id"]).name == made["id"]


def test_a_prediction_keeps_the_signature_that_it_was_checked_against(desk):
    made = desk.registration.create(ANNA, SEED)
    number = desk.run(ANNA, made["id"])

    for le in range(101, 101 + models.VERSIONS_MAX + 5):
        desk.clock.advance(1)
        desk.registration.replace(ANNA, made["id"], changed(le=str(le)))

    prediction = desk.prediction(number)
    old = desk.store.read(lambda tx: models.signature_at(tx, made["id"], prediction.version))
    assert prediction.state == QUEUED
    assert old.input("steps").rules.le == 1000


def test_of_signatures_that_nothing_needs_the_newest_are_kept(desk, monkeypatch):
    monkeypatch.setattr(models, "VERSIONS_MAX", 3)
    made = desk.registration.create(ANNA, SEED)
    seen = [desk.row(made["id"]).version]

    for le in ("100", "200", "300", "400"):
        desk.clock.advance(1)
        desk.registration.replace(ANNA, made["id"], changed(le=le))
        seen.append(desk.row(made["id"]).version)

    known = [v for v in seen if desk.store.read(lambda tx, v=v: models.signature_at(tx, made["id"], v)) is not None]
    assert known == seen[2:]


def test_a_change_of_what_is_no_longer_there_is_refused(desk):
    made = desk.registration.create(ANNA, SEED)
    _found, etag = desk.registration.get(ANNA, made["id"])
    desk.registration.replace(ANNA, made["id"], changed(le="900"), etag)

    for change in (desk.registration.replace, desk.registration.patch):
        with pytest.raises(ModelChanged):
            change(ANNA, made["id"], changed(le="800"), etag)

    found, newer = desk.registration.get(ANNA, made["id"])
    assert newer != etag
    assert found["inputs"][2]["validation"]["le"] == "900"


@pytest.mark.parametrize("match", ["*", '"1"', '"7", "1"', None])
def test_a_change_of_what_is_there_is_taken(desk, match):
    made = desk.registration.create(ANNA, SEED)

    desk.registration.replace(ANNA, made["id"], changed(le="900"), match)

    assert desk.row(made["id"]).revision == 2


def test_the_same_document_again_changes_nothing(desk):
    made = desk.registration.create(ANNA, SEED)
    desk.clock.advance(10)

    desk.registration.replace(ANNA, made["id"], SEED)

    row = desk.row(made["id"])
    assert (row.revision, row.updated_at) == (1, row.created_at)


def test_patches_at_the_same_time_all_count(store):
    desk = Registrar(store, SystemClock())
    id = desk.registration.create(ANNA, SEED)["id"]

    def patch(number):
        desk.registration.patch(ANNA, id, {f"note{number}": number})

    threads = [threading.Thread(target=patch, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found, etag = desk.registration.get(ANNA, id)
    assert [found.get(f"note{number}") for number in range(4)] == [0, 1, 2, 3]
    assert etag == '"5"'


@pytest.mark.parametrize("document", [{"outputs": "str"}, named("Paint"), changed(ge="9999")])
def test_a_document_that_is_wrong_changes_nothing(desk, document):
    made = desk.registration.create(ANNA, SEED)

    for change in (desk.registration.replace, desk.registration.patch):
        with pytest.raises(InvalidSignature):
            change(ANNA, made["id"], document if change == desk.registration.replace else {**document, "inputs": 1})

    assert desk.row(made["id"]).revision == 1


def test_a_name_is_taken_from_nobody(desk):
    desk.registration.create(ANNA, named("paint"))
    other = desk.registration.create(ANNA, named("draw"))["id"]

    with pytest.raises(ModelNameTaken):
        desk.registration.patch(ANNA, other, {"name": "paint"})
    with pytest.raises(InvalidSignature):
        desk.registration.patch(ANNA, other, {"name": UNKNOWN})
    desk.registration.patch(ANNA, other, {"name": other})

    assert desk.row(other).name == other


# --- whose it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["of anna", UNKNOWN, "", "paint", "m-\x00", "m-" + "A" * 20, "../x"])
def test_a_model_of_somebody_else_is_not_found_and_not_changed(desk, id):
    made = desk.registration.create(ANNA, named("paint", visibility="public"))
    id = made["id"] if id == "of anna" else id
    before = desk.rows()
    registration = desk.registration

    for attempt in (
        lambda: registration.get(BERT, id),
        lambda: registration.get(BERT, id, "credential"),
        lambda: registration.replace(BERT, id, SEED),
        lambda: registration.replace(BERT, id, {"wrong": 1}),
        lambda: registration.patch(BERT, id, {"name": "mine"}),
        lambda: registration.patch(BERT, id, None),
        lambda: registration.delete(BERT, id, force=True),
    ):
        with pytest.raises(ModelNotFound):
            attempt()

    assert desk.rows() == before
    assert listing(desk, BERT)["models"] == []


def test_a_public_model_is_visible_to_all_by_name_and_id_and_a_private_one_to_its_owner(desk):
    public = desk.registration.create(ANNA, named("paint", visibility="public"))["id"]
    private = desk.registration.create(ANNA, named("draw"))["id"]

    def seen(caller, word):
        try:
            return desk.store.read(lambda tx: models.visible(tx, caller, "anna", word)).id
        except ModelNotFound:
            return None

    assert [seen(BERT, word) for word in ("paint", public, "draw", private)] == [public, public, None, None]
    assert [seen(ANNA, word) for word in ("paint", public, "draw", private)] == [public, public, private, private]
    assert [seen(ANNA, word) for word in ("", "x\x00", "Paint", UNKNOWN)] == [None] * 4


def test_of_two_owners_of_one_account_name_each_sees_his_own_model_first(desk):
    twin = RunnerCaller("other-key", "anna")
    hers = desk.registration.create(ANNA, named("paint", visibility="public"))["id"]
    desk.clock.advance(1)
    his = desk.registration.create(twin, named("paint", visibility="public"))["id"]

    def seen(caller):
        return desk.store.read(lambda tx: models.visible(tx, caller, "anna", "paint")).id

    assert [seen(ANNA), seen(twin), seen(BERT)] == [hers, his, hers]


# --- look -----------------------------------------------------------------------------------------------------------


def test_a_look_tells_everything_but_the_secrets(desk, caplog):
    made = desk.registration.create(ANNA, named("paint"))

    found, etag = desk.registration.get(ANNA, made["id"])

    assert {name: found[name] for name in SEED} == SEED
    assert found["credential"] == {k: made["credential"][k] for k in ("AccountTag", "TunnelID", "TunnelName")}
    assert found["config"] == made["config"]
    assert found["runner"] == {"status": "OFFLINE", "connected": False, "last_seen": None}
    assert (found["state"], found["owner"], found["visibility"]) == ("ready", "anna", "private")
    assert re.fullmatch("[0-9a-f]{64}", found["version"])
    assert found["created_at"] == found["updated_at"] == "2027-01-15T08:00:00.000Z"
    assert etag == '"1"'
    assert made["credential"]["TunnelSecret"] not in str(found)


def test_a_look_at_the_credential_is_noted_without_it(desk, caplog):
    made = desk.registration.create(ANNA, SEED)

    with caplog.at_level(logging.INFO):
        found, _etag = desk.registration.get(ANNA, made["id"], "credential")

    assert found["credential"] == made["credential"]
    assert f"the credential of model {made['id']} was shown to key anna-key" in caplog.text
    assert made["credential"]["token"] not in caplog.text
    assert made["credential"]["TunnelSecret"] not in caplog.text


@pytest.mark.parametrize("change", ["replace", "patch"])
def test_a_change_that_answers_with_the_credential_is_noted_too(desk, caplog, change):
    made = desk.registration.create(ANNA, SEED)
    caplog.clear()

    with caplog.at_level(logging.INFO):
        answer = getattr(desk.registration, change)(ANNA, made["id"], SEED)

    assert answer["credential"] == made["credential"]
    assert caplog.messages == [f"audit: the credential of model {made['id']} was shown to key anna-key"]


def test_models_are_listed_page_by_page_oldest_first(desk):
    ids = []
    for number in range(5):
        ids.append(desk.registration.create(ANNA, named(f"paint-{number}"))["id"])
        desk.clock.advance(number % 2)
    pages, cursor = [], None

    while not pages or cursor is not None:
        page = listing(desk, cursor=cursor, limit=2)
        pages.append([model["model_id"] for model in page["models"]])
        cursor = page["next"]

    assert [len(page) for page in pages] == [2, 2, 1]
    shown = [id for page in pages for id in page]
    assert sorted(shown) == sorted(ids)
    assert shown[-1] == ids[-1]
    assert listing(desk)["next"] is None


def test_a_listed_model_has_its_basic_information(desk):
    made = desk.registration.create(ANNA, named("paint"))

    (model,) = listing(desk)["models"]

    assert list(model) == [
        "model_id", "model_name", "owner", "visibility", "version", "state", "hostname", "runner", "created_at",
        "updated_at",
    ]  # fmt: skip
    assert (model["model_id"], model["model_name"], model["owner"]) == (made["id"], "paint", "anna")
    assert model["hostname"] == f"{made['id']}.runners.localhost"


@pytest.mark.parametrize("cursor", ["", "x", "é", "W10", "A" * 600])
def test_a_cursor_that_nobody_gave_out_is_refused(desk, cursor):
    with pytest.raises(BadCursor):
        listing(desk, cursor=cursor)


# --- delete ---------------------------------------------------------------------------------------------------------


def test_a_model_that_is_deleted_is_gone_with_all_that_it_had(desk):
    made = desk.registration.create(ANNA, named("paint"))

    assert desk.registration.delete(ANNA, made["id"]) == {"id": made["id"], "deleted": True}

    assert desk.rows() == []
    assert desk.provider.tunnels == desk.provider.hostnames == {}
    with pytest.raises(ModelNotFound):
        desk.registration.get(ANNA, made["id"])
    with pytest.raises(ModelNotFound):
        desk.registration.delete(ANNA, made["id"])
    desk.registration.create(ANNA, named("paint"))


@pytest.mark.parametrize("state", [QUEUED, PROCESSING])
def test_a_model_that_has_something_to_do_is_only_deleted_by_force(desk, state):
    id = desk.registration.create(ANNA, SEED)["id"]
    number = desk.run(ANNA, id, state)

    with pytest.raises(ModelBusy):
        desk.registration.delete(ANNA, id)

    assert desk.row(id).state == "ready"
    assert desk.prediction(number).state == state


def test_force_cancels_what_waits_and_asks_what_runs_to_end(desk, clock):
    id = desk.registration.create(ANNA, named("paint"))["id"]
    running, waiting = desk.run(ANNA, id, PROCESSING), [desk.run(ANNA, id) for _ in range(3)]

    desk.registration.delete(ANNA, id, force=True)

    assert [desk.prediction(number).state for number in waiting] == [CANCELED] * 3
    assert desk.prediction(running).cancel_at == clock.now()
    assert desk.prediction(running).state == PROCESSING
    assert id in desk.provider.tunnels
    with pytest.raises(ModelNotFound):
        desk.registration.get(ANNA, id)
    assert listing(desk)["models"] == []
    desk.registration.create(ANNA, named("paint"))


def test_a_model_ends_once_its_last_prediction_has(desk, clock):
    id = desk.registration.create(ANNA, SEED)["id"]
    number = desk.run(ANNA, id, PROCESSING)
    desk.registration.delete(ANNA, id, force=True)
    clock.advance(5)
    desk.registration.tend()
    assert id in desk.provider.tunnels

    desk.booth.report(desk.prediction(number), state=CANCELED)
    clock.advance(5)
    desk.registration.tend()

    assert desk.rows() == []
    assert desk.provider.tunnels == {}


def test_a_prediction_that_never_ends_holds_its_model_no_longer_than_the_grace_of_a_cancel(desk, clock):
    id = desk.registration.create(ANNA, SEED)["id"]
    number = desk.run(ANNA, id, PROCESSING)
    desk.registration.delete(ANNA, id, force=True)

    for _ in range(6):
        clock.advance(5)
        desk.registration.tend()

    assert desk.prediction(number).state == CANCELED
    assert desk.rows() == []
    assert desk.provider.tunnels == {}


def test_a_great_many_predictions_are_canceled_too(desk, monkeypatch):
    monkeypatch.setattr(provisioning, "BATCH", 4)
    id = desk.registration.create(ANNA, SEED)["id"]
    numbers = [desk.run(ANNA, id) for _ in range(9)]

    desk.registration.delete(ANNA, id, force=True)

    assert {desk.prediction(number).state for number in numbers} == {CANCELED}
    assert desk.rows() == []


# --- nothing is left over -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["create_tunnel", "create_hostname"])
def test_a_registration_that_fails_leaves_nothing_behind(desk, failing):
    desk.provider.failing = {failing}

    with pytest.raises(TunnelProviderFailed):
        desk.registration.create(ANNA, named("paint"))

    assert desk.provider.tunnels == desk.provider.hostnames == {}
    assert listing(desk)["models"] == []
    desk.provider.failing = set()
    desk.registration.create(ANNA, named("paint"))


def test_what_cannot_be_undone_at_once_the_janitor_undoes(desk, clock):
    desk.provider.failing = {"create_hostname", "delete"}
    with pytest.raises(TunnelProviderFailed):
        desk.registration.create(ANNA, SEED)
    assert [row.state for row in desk.rows()] == ["cleanup"]
    assert len(desk.provider.tunnels) == 1
    desk.provider.failing = set()

    desk.registration.tend()

    assert desk.provider.tunnels == {}


def test_a_request_that_is_carried_out_after_its_answer_was_given_up_is_undone_too(desk, clock):
    desk.provider.failing = {"create_tunnel"}
    with pytest.raises(TunnelProviderFailed):
        desk.registration.create(ANNA, SEED)
    (row,) = desk.rows()
    desk.provider.failing = set()
    desk.provider.create_tunnel(row.id)

    clock.advance(provisioning.LOOK_AGAIN)
    desk.registration.tend()

    assert desk.provider.tunnels == {}
    assert desk.rows() == []


def test_a_deletion_that_the_provider_refuses_counts_for_the_owner_and_is_tried_until_it_is_done(desk, clock):
    id = desk.registration.create(ANNA, SEED)["id"]
    desk.provider.failing = {"delete"}

    assert desk.registration.delete(ANNA, id)["deleted"]
    for _ in range(3):
        desk.registration.tend()
        clock.advance(provisioning.RETRY)
    assert desk.row(id).state == "deleting"
    desk.provider.failing = set()
    desk.registration.tend()

    assert desk.rows() == []
    assert desk.provider.tunnels == {}


@pytest.mark.parametrize("died_at", ["create_tunnel", "create_hostname"])
def test_a_registration_whose_process_died_is_undone_once_it_cannot_be_at_work_any_more(desk, clock, die_at, died_at):
    die_at(died_at)
    with pytest.raises(Died):
        desk.registration.create(ANNA, named("paint"), "key-1")
    (row,) = desk.rows()
    die_at(None)

    clock.advance(provisioning.PENDING_MAX - 1)
    desk.registration.tend()
    assert desk.row(row.id).state == "pending"
    clock.advance(1)
    desk.registration.tend()

    assert desk.provider.tunnels == {}
    assert desk.row(row.id).state == "failed"
    assert desk.registration.create(ANNA, named("paint"), "key-1")["id"] != row.id


@pytest.mark.parametrize("operation", ["create_tunnel", "create_hostname"])
def test_a_model_that_is_deleted_while_its_tunnel_is_made_leaves_no_tunnel(desk, operation):
    def delete(asked, id):
        if asked == operation:
            desk.provider.before = lambda operation, id: None
            desk.registration.delete(ANNA, id)

    desk.provider.before = delete

    with pytest.raises(ModelNotFound):
        desk.registration.create(ANNA, SEED)

    assert desk.provider.tunnels == desk.provider.hostnames == {}
    assert desk.rows() == []


def test_a_tunnel_that_is_made_much_too_late_is_undone(desk, clock):
    def dawdle(asked, id):
        if asked == "create_tunnel":
            clock.advance(1000)
            desk.registration.tend()
            clock.advance(1000)
            desk.registration.tend()

    desk.provider.before = dawdle

    with pytest.raises(ModelNotFound):
        desk.registration.create(ANNA, SEED)

    assert desk.provider.tunnels == desk.provider.hostnames == {}
    assert desk.rows() == []


def test_an_answer_without_a_secret_is_a_failure(desk):
    whole = desk.provider.create_tunnel

    def without_secret(id):
        answer = whole(id)
        del answer["result"]["credentials_file"]["TunnelSecret"]
        return answer

    desk.provider.create_tunnel = without_secret

    with pytest.raises(TunnelProviderFailed):
        desk.registration.create(ANNA, SEED)

    assert desk.provider.tunnels == {}


def test_one_model_that_cannot_be_tended_does_not_keep_the_others_waiting(desk, clock, caplog):
    ids = [desk.registration.create(ANNA, SEED)["id"] for _ in range(7)]
    desk.provider.failing = {"delete"}
    for id in ids:
        desk.registration.delete(ANNA, id)
    desk.provider.failing = set()

    def fall_over(operation, id):
        if id == ids[0]:
            raise RuntimeError("of the provider")

    desk.provider.before = fall_over
    desk.registration.tend()

    assert list(desk.provider.tunnels) == ids[:1]
    assert "could not be tended" in caplog.text


def test_a_tunnel_of_another_provider_is_left_for_a_node_that_uses_that_one(desk, clock, caplog):
    id = desk.registration.create(ANNA, SEED)["id"]
    desk.store.write(lambda tx: models.change_model(tx, id, provider="cloudflare"))

    desk.registration.delete(ANNA, id)
    clock.advance(provisioning.CLAIM)
    desk.registration.tend()

    assert ("delete", id) not in desk.provider.asked
    assert desk.row(id).state == "deleting"
    desk.provider.name = "cloudflare"
    clock.advance(provisioning.ELSEWHERE)
    desk.registration.tend()
    assert desk.rows() == []
