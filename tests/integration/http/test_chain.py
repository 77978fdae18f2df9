"""Pylon's API: who may ask what, what is answered, and in which words it is refused."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from marshmallow import RAISE, Schema
from werkzeug.test import TestResponse

from grid_node.chain import answers
from grid_node.chain.ports import Certificate, Commitment
from grid_node.database import make_engine
from grid_node.errors import ChainNotRecent, ChainQueueFull, ChainTimeout, ChainUnreachable, StoreUnavailable
from grid_node.http.chain_measuring import template
from tests.chain_house import ID, OA, OPEN, SN1, SN2, ChainHouse, bearer
from tests.chain_stub import hotkey_of, neuron_of
from tests.stores import sqlite_template

__all__ = ["sqlite_template"]
HOTKEY = neuron_of(0).hotkey
NOBODY = hotkey_of("nobody")


@pytest.fixture
def build(sqlite_template: Path, tmp_path: Path) -> Iterator[Any]:
    made: list[ChainHouse] = []
    file = tmp_path / "grid.db"
    shutil.copy(sqlite_template, file)
    engine = make_engine(f"sqlite:///{file}")

    def build(**options: Any) -> ChainHouse:
        made.append(ChainHouse(engine, tmp_path, **options))
        return made[-1]

    yield build
    for house in made:
        house.close()
    engine.dispose()


@pytest.fixture
def house(build: Any) -> ChainHouse:
    house = build()
    house.stub.subnet(1, commitments={HOTKEY: Commitment(HOTKEY, b"\x00\xffraw", 900)})
    house.stub.subnet(1, certificates={HOTKEY: Certificate(1, bytes(31) + b"\x07")})
    house.link.tick()
    return house


@pytest.fixture
def client(house: ChainHouse) -> FlaskClient:
    return house.client()


def refused(answer: TestResponse, status: int, detail: str, **more: Any) -> None:
    """The whole answer, and nothing of the house's shape."""
    assert (answer.status_code, answer.get_json()) == (status, {"status_code": status, "detail": detail, **more})
    assert answer.content_type == "application/json"


# --- what is answered --------------------------------------------------------------------------------------------

READS = (
    "block/latest/neurons",
    "block/recent/neurons",
    "block/1001/neurons",
    "block/latest/validators",
    "block/1002/validators",
    "block/latest/certificates",
    "block/latest/commitments",
    f"block/latest/certificates/{HOTKEY}",
    f"block/latest/commitments/{HOTKEY}",
)


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("slash", ["", "/"])
def test_both_accesses_read_the_same(client: FlaskClient, path: str, slash: str) -> None:
    by_open = client.get(f"{OA}/{path}{slash}", headers=bearer(OPEN))
    by_identity = client.get(f"{ID}/{path}{slash}", headers=bearer(SN1))

    assert (by_open.status_code, by_identity.status_code) == (200, 200), by_open.text
    assert by_open.data == by_identity.data
    assert isinstance(by_open.get_json(), dict)
    assert int(by_open.headers["X-Chain-Age"]) >= 0


def test_neurons_are_a_map_in_the_order_of_uids_with_the_age_of_their_block(
    house: ChainHouse, client: FlaskClient
) -> None:
    answer = client.get(f"{OA}/block/latest/neurons", headers=bearer(OPEN))
    head = house.stub.at(house.stub.head_number)
    body = answer.get_json()

    assert body["block"] == head.ref()
    assert [neuron["uid"] for neuron in body["neurons"].values()] == list(range(8))
    assert body["neurons"][HOTKEY] == neuron_of(0).body()
    assert answer.headers["X-Chain-Age"] == str(int(house.clock.now()) - head.timestamp)


def test_commitments_and_certificates_keep_their_zeros(client: FlaskClient) -> None:
    one = client.get(f"{ID}/block/latest/commitments/self", headers=bearer(SN1)).get_json()
    certificate = client.get(f"{ID}/block/latest/certificates/self", headers=bearer(SN1)).get_json()

    assert one.pop("block")["number"] > 1000
    assert one == {"hotkey": HOTKEY, "commitment": "0x00ff726177", "commitment_block_number": 900}
    assert certificate == {"algorithm": 1, "public_key": "00" * 31 + "07"}


def test_blocks_and_extrinsics_need_no_token_but_no_wrong_one(house: ChainHouse, client: FlaskClient) -> None:
    head = house.stub.at(house.stub.head_number)

    assert client.get("/api/v1/block/latest").get_json() == head.body()
    assert client.get("/api/v1/block/latest", headers=bearer(OPEN)).status_code == 200
    assert client.get("/api/v1/block/1000/extrinsic/0").get_json()["extrinsic_index"] == 0
    refused(client.get("/api/v1/block/latest", headers=bearer("x")), 403, "Invalid authorization token")
    refused(client.get("/api/v1/block/7/extrinsic/99"), 404, "Extrinsic 7-99 not found.")


def test_the_status_of_the_chain_takes_the_open_token(client: FlaskClient) -> None:
    answer = client.get("/api/v1/chain/status", headers=bearer(OPEN))

    assert set(answer.get_json()) == {
        "backend", "worker", "head", "age_seconds", "endpoints", "queue", "cache_bytes",
    }  # fmt: skip
    refused(client.get("/api/v1/chain/status"), 401, "Authorization header is required")


def test_writes_are_answered_as_pylon_answers(house: ChainHouse, client: FlaskClient) -> None:
    put = client.put(f"{ID}/weights", json={"weights": {HOTKEY: "0.5", "nonsense": 1}}, headers=bearer(SN1))
    said = put.get_json()
    status = client.get(f"{ID}/weights/status", headers=bearer(SN1)).get_json()
    committed = client.post(f"{ID}/commitments", json={"commitment": "deadbeef"}, headers=bearer(SN1))
    pair = client.post(f"{ID}/certificates/self", json={}, headers=bearer(SN1))

    assert (put.status_code, said["detail"], said["count"]) == (200, "weights update scheduled", 2)
    assert said["dropped"] == ["nonsense"]
    assert (status["job_id"], status["status"], status["weights_submitted"]) == (said["job_id"], "scheduled", False)
    assert (committed.status_code, committed.get_json()) == (201, {"detail": "Commitment set successfully."})
    assert (pair.status_code, set(pair.get_json())) == (201, {"algorithm", "public_key", "private_key"})
    assert len(house.stub.landed) == 2


def test_an_identity_without_weights_has_no_status(client: FlaskClient) -> None:
    answer = client.get("/api/v1/identity/sn2/subnet/2/weights/status", headers=bearer(SN2))

    refused(answer, 404, "No weights job for identity 'sn2'.")


def test_options_tell_the_methods_without_a_body(client: FlaskClient) -> None:
    answer = client.options(f"{ID}/weights")

    assert (answer.status_code, answer.data) == (204, b"")
    assert set(answer.headers["Allow"].split(", ")) == {"PUT", "OPTIONS"}


def test_a_head_has_the_headers_and_no_body(client: FlaskClient) -> None:
    asked = client.get(f"{OA}/block/1000/neurons", headers=bearer(OPEN))
    answer = client.head(f"{OA}/block/1000/neurons", headers=bearer(OPEN))

    assert answer.data == b""
    assert answer.headers.get("Content-Length") == asked.headers.get("Content-Length")


ANSWERS: tuple[tuple[str, type[Schema], str], ...] = (
    (f"{OA}/block/latest/neurons", answers.NeuronsAnswer, OPEN),
    (f"{OA}/block/latest/validators", answers.ValidatorsAnswer, OPEN),
    (f"{OA}/block/latest/commitments", answers.CommitmentsAnswer, OPEN),
    (f"{OA}/block/latest/commitments/{HOTKEY}", answers.CommitmentAnswer, OPEN),
    (f"{OA}/block/latest/certificates/{HOTKEY}", answers.CertificateAnswer, OPEN),
    (f"{ID}/weights/status", answers.WeightsStatusAnswer, SN1),
    ("/api/v1/identities", answers.IdentitiesAnswer, OPEN),
    ("/api/v1/block/latest", answers.BlockAnswer, OPEN),
    ("/api/v1/block/1000/extrinsic/0", answers.ExtrinsicAnswer, OPEN),
    ("/api/v1/chain/status", answers.ChainStatusAnswer, OPEN),
)


@pytest.mark.parametrize(("path", "schema", "token"), ANSWERS)
def test_answers_are_what_the_document_says(client: FlaskClient, path: str, schema: type[Schema], token: str) -> None:
    client.put(f"{ID}/weights", json={"weights": {HOTKEY: 1}}, headers=bearer(SN1))

    answer = client.get(path, headers=bearer(token))

    assert answer.status_code == 200
    assert schema(unknown=RAISE).validate(answer.get_json()) == {}


# --- who may ---------------------------------------------------------------------------------------------------------

BAD_HEADERS: tuple[tuple[dict[str, str], int, str], ...] = (
    ({}, 401, "Authorization header is required"),
    ({"Authorization": "Token x"}, 401, "Invalid Authorization header format. Expected: Bearer <token>"),
    ({"Authorization": "Bearer"}, 401, "Invalid Authorization header format. Expected: Bearer <token>"),
    (bearer("wrong"), 403, "Invalid authorization token"),
    (bearer("t\xf6ken"), 403, "Invalid authorization token"),
)


@pytest.mark.parametrize("base", [OA, ID])
@pytest.mark.parametrize(("headers", "status", "detail"), BAD_HEADERS)
def test_a_wrong_token_is_refused_on_the_fast_way_as_on_the_slow(
    house: ChainHouse, base: str, headers: dict[str, str], status: int, detail: str
) -> None:
    client = house.client()
    client.get(f"{OA}/block/latest/neurons", headers=bearer(OPEN))  # now it is in memory

    fast = client.get(f"{base}/block/latest/neurons", headers=headers)
    other = client.get(f"{base}/block/latest/neurons/", headers=headers)
    house.slowly()
    slow = house.client().get(f"{base}/block/latest/neurons", headers=headers)

    for answer in (fast, other, slow):
        refused(answer, status, detail)
        assert_documented(house, "GET", answer.request.path, status)
        assert answer.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)


def test_the_other_access_s_token_opens_nothing(client: FlaskClient) -> None:
    refused(client.get(f"{ID}/block/latest/neurons", headers=bearer(OPEN)), 403, "Invalid authorization token")
    refused(client.get(f"{OA}/block/latest/neurons", headers=bearer(SN1)), 403, "Invalid authorization token")


def test_an_identity_never_reaches_another_subnet(house: ChainHouse, client: FlaskClient) -> None:
    path = "/api/v1/identity/sn1/subnet/2"
    for answer in (
        client.get(f"{path}/block/latest/neurons", headers=bearer(SN1)),
        client.put(f"{path}/weights", data=b"no json", headers=bearer(SN1)),
        client.post(f"{path}/commitments", json={"commitment": "00"}, headers=bearer(SN1)),
    ):
        refused(answer, 308, "Identity 'sn1' is bound to subnet 1, not 2")
        assert_documented(house, answer.request.method, answer.request.path, 308)
        assert "Location" not in answer.headers
    assert house.stub.landed == []


def test_an_unknown_identity_is_not_found(client: FlaskClient) -> None:
    detail = "Identity 'nope' not found"

    refused(client.get("/api/v1/identity/nope/subnet/1/block/latest/neurons", headers=bearer(SN1)), 404, detail)
    refused(client.post("/api/v1/login/identity/nope", json={"token": SN1}), 404, detail)


def test_without_an_open_token_any_header_passes(build: Any) -> None:
    client = build(pylon={"PYLON_OPEN_ACCESS_TOKEN": ""}).client()

    for headers in ({}, bearer("anything"), {"Authorization": "Token x"}):
        assert client.get(f"{OA}/block/latest/neurons", headers=headers).status_code == 200


def test_an_absent_header_passes_where_the_setting_says_so(build: Any) -> None:
    client = build(chain_allow_tokenless_open_access=True).client()

    assert client.get(f"{OA}/block/latest/neurons").status_code == 200
    refused(client.get(f"{OA}/block/latest/neurons", headers=bearer("x")), 403, "Invalid authorization token")


def test_who_guesses_too_often_waits_and_each_guess_counts_once(build: Any) -> None:
    house = build(chain_auth_failures_per_minute=2)
    client = house.client()
    client.get(f"{OA}/block/latest/neurons", headers=bearer(OPEN))

    statuses = [client.get(f"{ID}/block/latest/neurons", headers=bearer("x")).status_code for _ in range(4)]
    last = client.get(f"{ID}/block/latest/neurons", headers=bearer("x"))

    assert statuses == [403, 403, 429, 429]
    assert int(last.headers["Retry-After"]) >= 1
    assert last.get_json()["status_code"] == 429


# --- sessions ----------------------------------------------------------------------------------------------------


def test_a_login_gives_a_cookie_that_opens_its_identity_alone(house: ChainHouse) -> None:
    client = house.client()
    answer = client.post("/api/v1/login/identity/sn1", json={"token": SN1, "identity_name": "sn1"})
    cookie = answer.headers["Set-Cookie"]

    assert answer.get_json() == {"netuid": 1, "identity_name": "sn1"}
    name_and_value, *attributes = cookie.split("; ")
    assert name_and_value.startswith("pylon_session=")
    assert set(attributes) == {"HttpOnly", "SameSite=Strict", "Path=/api/v1/identity/sn1", "Max-Age=2592000"} | {
        part for part in attributes if part.startswith("Expires=")
    }
    assert client.get(f"{ID}/block/latest/neurons").status_code == 200
    refused(client.get(f"{OA}/block/latest/neurons"), 401, "Authorization header is required")
    stolen = {"Cookie": name_and_value}
    other = house.app.test_client(use_cookies=False)
    refused(
        other.get("/api/v1/identity/sn2/subnet/2/block/latest/neurons", headers=stolen),
        401,
        "Session is invalid or expired",
    )
    refused(other.get(f"{ID}/block/latest/neurons", headers={**stolen, **bearer("x")}), 403, BAD_HEADERS[3][2])


def test_the_cookie_is_secure_over_https(client: FlaskClient) -> None:
    answer = client.post("/api/v1/login/identity/sn1", json={"token": SN1}, base_url="https://localhost")

    assert "; Secure" in answer.headers["Set-Cookie"]


def test_a_session_is_renewed_on_use_after_half_its_life(house: ChainHouse) -> None:
    client = house.client()
    client.post("/api/v1/login/identity/sn1", json={"token": SN1})
    assert "Set-Cookie" not in client.get(f"{ID}/block/latest/neurons").headers
    house.clock.advance(2592000 * 0.6)

    renewed = client.get(f"{ID}/block/latest/neurons")

    assert renewed.status_code == 200
    assert renewed.headers["Set-Cookie"].startswith("pylon_session=")


LOGINS = (
    (b"{}", 400, "Validation failed for POST /api/v1/login/identity/sn1", [("token", "Field required")]),
    (
        b'{"token":1}',
        400,
        "Validation failed for POST /api/v1/login/identity/sn1",
        [("token", "Input should be a valid string")],
    ),
    (b'{"token":"x"}', 403, "Invalid authorization token", None),
    ('{"token":"\xf6"}'.encode(), 403, "Invalid authorization token", None),
)


@pytest.mark.parametrize(("body", "status", "detail", "extra"), LOGINS)
def test_a_bad_login_gets_no_cookie(client: FlaskClient, body: bytes, status: int, detail: str, extra: Any) -> None:
    answer = client.post("/api/v1/login/identity/sn1", data=body)

    refused(answer, status, detail, **problems(extra))
    assert "Set-Cookie" not in answer.headers


def test_identities_are_told_to_everybody(client: FlaskClient) -> None:
    assert client.get("/api/v1/identities").get_json() == {"identities": {"sn1": 1, "sn2": 2}}


# --- bad input ---------------------------------------------------------------------------------------------------


def problems(extra: Any) -> dict[str, Any]:
    return {} if extra is None else {"extra": [{"message": message, "key": key} for key, message in extra]}


WEIGHT = f"weights.{HOTKEY}"
NO_TEXT = "Input should be a valid number, unable to parse string as a number"
NUMBER = "Input should be a valid number"
FINITE = "Input should be a finite number"
HEX = "Value error, passed commitment data is not a valid hex string."
EDDSA = "Value error, Currently, only algorithm equals 1 is supported which is EdDSA using Ed25519 curve"


def weight(text: str) -> str:
    return f'{{"weights":{{"{HOTKEY}":{text}}}}}'


BAD_BODIES = (
    ("weights", '{"weights":{}}', "weights", "Value error, No weights provided"),
    ("weights", "{}", "weights", "Field required"),
    ("weights", '{"weights":null}', "weights", "Input should be a valid dictionary"),
    ("weights", '{"weights":[]}', "weights", "Input should be a valid dictionary"),
    ("weights", weight('"abc"'), WEIGHT, NO_TEXT),
    ("weights", weight('"' + "1" * 65 + '"'), WEIGHT, NO_TEXT),
    ("weights", weight("true"), WEIGHT, NUMBER),
    ("weights", weight("null"), WEIGHT, NUMBER),
    ("weights", weight("[1]"), WEIGHT, NUMBER),
    ("weights", weight("NaN"), WEIGHT, FINITE),
    ("weights", weight("Infinity"), WEIGHT, FINITE),
    ("weights", weight("-Infinity"), WEIGHT, FINITE),
    ("weights", weight("1e999"), WEIGHT, FINITE),
    ("weights", weight('"nan"'), WEIGHT, FINITE),
    ("weights", weight("9" * 400), WEIGHT, FINITE),
    ("weights", weight("-0.1"), WEIGHT, "Input should be greater than or equal to 0"),
    (
        "weights",
        json.dumps({"weights": {NOBODY: 1, "nonsense": 2}}),
        "weights",
        "Value error, None of the hotkeys is registered on subnet 1",
    ),
    ("weights", "[]", "", "Input should be an object"),
    ("weights", "1", "", "Input should be an object"),
    ("commitments", "{}", "commitment", "Field required"),
    ("commitments", '{"commitment":"xyz"}', "commitment", HEX),
    ("commitments", '{"commitment":"abc"}', "commitment", HEX),
    ("commitments", '{"commitment":"ab cd"}', "commitment", HEX),
    ("commitments", '{"commitment":null}', "commitment", HEX),
    ("commitments", '{"commitment":7}', "commitment", HEX),
    ("commitments", '{"commitment":""}', "commitment", "Data should have at least 1 byte"),
    ("commitments", '{"commitment":"0x"}', "commitment", "Data should have at least 1 byte"),
    ("commitments", '{"commitment":"%s"}' % ("00" * 129), "commitment", "Data should have at most 128 bytes"),
    ("certificates/self", '{"algorithm":2}', "algorithm", EDDSA),
    ("certificates/self", '{"algorithm":true}', "algorithm", EDDSA),
    ("certificates/self", '{"algorithm":null}', "algorithm", EDDSA),
)


@pytest.mark.parametrize(("route", "body", "key", "message"), BAD_BODIES)
def test_a_bad_field_is_named_in_pylon_s_words(
    house: ChainHouse, client: FlaskClient, route: str, body: str, key: str, message: str
) -> None:
    method = "PUT" if route == "weights" else "POST"

    answer = client.open(f"{ID}/{route}", method=method, data=body, headers=bearer(SN1))

    refused(answer, 400, f"Validation failed for {method} {ID}/{route}", **problems([(key, message)]))
    assert_documented(house, method, f"{ID}/{route}", 400)
    assert house.stub.landed == []


BROKEN = (b"", b"{", b'{"weights":{"a":1}', b'{"weights":{"a":1,"a":2}}', b"\xff", b'{"a":"\\ud800"}', b"[" * 5000)


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("route", ["weights", "commitments", "certificates/self"])
def test_broken_json_has_no_extra(client: FlaskClient, route: str, body: bytes) -> None:
    method = "PUT" if route == "weights" else "POST"

    answer = client.open(f"{ID}/{route}", method=method, data=body, headers=bearer(SN1))

    assert answer.status_code == 400
    assert answer.get_json()["detail"].startswith("JSON is malformed: ")
    assert set(answer.get_json()) == {"status_code", "detail"}


def test_ten_thousand_weights_are_taken_and_a_hundred_wrong_ones_named(client: FlaskClient) -> None:
    many = {HOTKEY: 1.0} | {f"nobody-{number}": 0.5 for number in range(10_000)}
    taken = client.put(f"{ID}/weights", json={"weights": many}, headers=bearer(SN1))
    wrong = client.put(f"{ID}/weights", json={"weights": dict.fromkeys(many, -1)}, headers=bearer(SN1))

    assert (taken.status_code, taken.get_json()["count"]) == (200, 10_001)
    assert len(taken.get_json()["dropped"]) == 10_000
    assert (wrong.status_code, len(wrong.get_json()["extra"])) == (400, 100)


class Counting:
    """A body that says how much of it was read."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        size = min(self.left, size if size >= 0 else self.left)
        self.left -= size
        self.read_bytes += size
        return b" " * size


@pytest.mark.parametrize("headers", [bearer(SN1), {}])
def test_a_body_above_the_limit_is_not_read(build: Any, headers: dict[str, str]) -> None:
    body = Counting(5000)
    house = build(chain_body_max_bytes=1000)
    client = house.client()
    environ = {"wsgi.input": body, "CONTENT_LENGTH": "5000"}

    answer = client.put(f"{ID}/weights", headers=headers, environ_overrides=environ)

    if headers:
        refused(answer, 413, "Request body is larger than 1000 bytes.")
        assert_documented(house, "PUT", f"{ID}/weights", 413)
    else:
        refused(answer, 401, "Authorization header is required")
    assert body.read_bytes == 0


PATHS = (
    ("/api/v1/subnet/x/block/latest/neurons", 404, "Not Found"),
    ("/api/v1/subnet/-1/block/latest/neurons", 404, "Not Found"),
    ("/api/v1/subnet/\u0661/block/latest/neurons", 404, "Not Found"),
    (f"{OA}/block/x/neurons", 404, "Not Found"),
    (f"{OA}/block/-1/neurons", 404, "Not Found"),
    (f"{OA}/block/recent/validators", 404, "Not Found"),
    (f"{OA}/block/1.0/neurons", 404, "Not Found"),
    ("/api/v1/block/x/extrinsic/0", 404, "Not Found"),
    ("/api/v1/block/1/extrinsic/x", 404, "Not Found"),
    ("/api/v1/subnet/70/block/latest/neurons", 404, "Subnet 70 not found."),
    ("/api/v1/subnet/70/block/latest/commitments", 404, "Subnet 70 not found."),
    ("/api/v1/subnet/70000/block/latest/neurons", 404, "Subnet 70000 not found."),
    ("/api/v1/subnet/70000/block/1/neurons", 404, "Subnet 70000 not found."),
    (f"{OA}/block/9999/neurons", 404, "Block 9999 not found."),
    (f"{OA}/block/{2**32}/neurons", 404, f"Block {2**32} not found."),
    (f"{OA}/block/{2**32}/validators", 404, f"Block {2**32} not found."),
    (f"/api/v1/block/{2**32}/extrinsic/0", 404, f"Block {2**32} not found."),
    (f"/api/v1/block/1000/extrinsic/{2**40}", 404, f"Extrinsic 1000-{2**40} not found."),
    (f"{OA}/block/latest/commitments/nonsense", 404, "Commitment not found."),
    (f"{OA}/block/latest/commitments/self", 404, "Commitment not found."),
    (f"{OA}/block/latest/commitments/{NOBODY}", 404, "Commitment not found."),
    (f"{OA}/block/latest/certificates/nonsense", 404, "Certificate not found or error fetching."),
    (f"{OA}/block/latest/certificates/self", 404, "Certificate not found or error fetching."),
    (f"{OA}/block/latest/certificates/{NOBODY}", 404, "Certificate not found or error fetching."),
    ("/api/v1/subnet/1//block/latest/neurons", 404, "Not Found"),
    ("/api/v1//block/latest", 404, "Not Found"),
    ("/api/v1/block/latest//", 404, "Not Found"),
    ("/api/v1/nothing", 404, "Not Found"),
    ("/api/v1/", 404, "Not Found"),
    ("/api/_unstable/subnet/1", 404, "Not Found"),
    (f"{OA}/block/latest/hyperparams", 404, "Not Found"),
)


@pytest.mark.parametrize(("path", "status", "detail"), PATHS)
def test_a_path_to_nothing(client: FlaskClient, path: str, status: int, detail: str) -> None:
    refused(client.get(path, headers=bearer(OPEN)), status, detail)


@pytest.mark.parametrize(
    ("path", "status"), [(path, status) for path, status, detail in PATHS if detail != "Not Found"]
)
def test_what_a_path_is_refused_with_is_documented(house: ChainHouse, path: str, status: int) -> None:
    assert_documented(house, "GET", path, status)


def test_a_number_beyond_reason_asks_nobody(house: ChainHouse, client: FlaskClient) -> None:
    before = sum(house.stub.calls.values())

    for path in (f"/api/v1/subnet/{10**300}/block/latest/neurons", f"{OA}/block/{10**300}/neurons"):
        assert client.get(path, headers=bearer(OPEN)).get_json()["detail"].endswith(" not found.")
    refused(client.get(f"{OA}/block/{'9' * 5000}/neurons", headers=bearer(OPEN)), 404, "Not Found")

    assert sum(house.stub.calls.values()) == before


def test_another_method_is_refused_with_those_there_are(client: FlaskClient) -> None:
    answer = client.post(f"{OA}/block/latest/neurons", headers=bearer(OPEN))

    refused(answer, 405, "Method Not Allowed")
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        ("abc", "Invalid X-Pylon-Timeout header value: abc"),
        ("nan", "Invalid X-Pylon-Timeout header value: nan"),
        ("", "Invalid X-Pylon-Timeout header value: "),
        ("0.0", "X-Pylon-Timeout header value must be positive, got 0.0"),
        ("-1", "X-Pylon-Timeout header value must be positive, got -1.0"),
    ],
)
def test_a_timeout_that_is_none(client: FlaskClient, given: str, detail: str) -> None:
    client.get(f"{OA}/block/latest/neurons", headers=bearer(OPEN))

    answer = client.get(f"{OA}/block/latest/neurons", headers={**bearer(OPEN), "X-Pylon-Timeout": given})

    refused(answer, 400, detail)


@pytest.mark.parametrize(("given", "waits"), [(None, 60.0), ("2.5", 2.5), ("1e9", 300.0), ("inf", 300.0)])
def test_a_timeout_is_passed_on_and_clamped(
    house: ChainHouse, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, given: str | None, waits: float
) -> None:
    waited: list[float] = []
    latest = house.chain.reads.latest

    def watched(kind: str, netuid: int, timeout: float) -> Any:
        waited.append(timeout)
        return latest(kind, netuid, timeout)

    monkeypatch.setattr(house.chain.reads, "latest", watched)
    headers = bearer(OPEN) | ({} if given is None else {"X-Pylon-Timeout": given})

    assert client.get(f"{OA}/block/latest/validators", headers=headers).status_code == 200
    assert waited == [waits]


def test_a_dead_chain_is_a_bad_gateway(build: Any) -> None:
    house = build()
    house.stub.is_down = "no route"
    refused(
        house.client().get(f"{OA}/block/1001/neurons", headers=bearer(OPEN)),
        502,
        "Chain node is unreachable: no route",
    )


@pytest.mark.parametrize(
    ("error", "status", "detail", "wait"),
    [
        (ChainQueueFull(), 503, "Chain queue is full.", "1"),
        (ChainNotRecent(retry_after=12), 503, "No recent data available", "12"),
        (ChainTimeout(), 504, "Request timed out", None),
        (ChainUnreachable("Chain node is unreachable: x"), 502, "Chain node is unreachable: x", None),
        (StoreUnavailable(retry_after=1.2), 503, StoreUnavailable.text, "2"),
    ],
)
def test_a_refusal_of_the_chain_says_when_to_come_again(
    house: ChainHouse, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, detail: str, wait: str | None
) -> None:
    def refuse(*_args: Any) -> Any:
        raise error

    monkeypatch.setattr(house.chain.reads, "at", refuse)
    answer = house.client().get(f"{OA}/block/1/neurons", headers=bearer(OPEN))

    refused(answer, status, detail)
    assert answer.headers.get("Retry-After") == wait
    assert_documented(house, "GET", f"{OA}/block/1/neurons", status)


def test_a_fault_of_ours_is_told_without_detail(
    house: ChainHouse, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(house.chain.reads, "at", broken)

    refused(client.get(f"{OA}/block/1/neurons", headers=bearer(OPEN)), 500, "Internal Server Error")


# --- the fast way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["neurons", "validators", "certificates", "commitments"])
@pytest.mark.parametrize(("base", "token"), [(OA, OPEN), (ID, SN1)])
def test_the_fast_way_answers_as_the_slow_one(house: ChainHouse, kind: str, base: str, token: str) -> None:
    path, client = f"{base}/block/latest/{kind}", house.client()
    first = client.get(path, headers=bearer(token))
    misses = sample(house, "grid_chain_cache_misses_total")

    fast = client.get(path, headers=bearer(token))
    house.slowly()
    slow = house.client().get(path, headers=bearer(token))

    assert fast.data == slow.data == first.data
    assert sample(house, "grid_chain_cache_misses_total") == misses
    drop = {"X-Request-Id"}
    assert {k: v for k, v in fast.headers if k not in drop} == {k: v for k, v in slow.headers if k not in drop}


# --- metrics -----------------------------------------------------------------------------------------------------


def sample(house: ChainHouse, name: str, **labels: str) -> float | None:
    return house.metrics.registry.get_sample_value(name, labels)


def test_requests_are_counted_by_template_on_both_ways(house: ChainHouse, client: FlaskClient) -> None:
    for _ in range(3):
        client.get(f"{OA}/block/latest/neurons", headers=bearer(OPEN))
    client.get(f"{OA}/block/7777777/neurons", headers=bearer(OPEN))
    client.get("/api/v1/nothing")
    client.get("/api/v1/nothing/else")
    client.open("/api/v1/nothing", method="BREW")
    labels = {"app_name": "bittensor-pylon", "method": "GET"}
    latest = {**labels, "path": "/api/v1/subnet/{netuid}/block/latest/neurons"}

    assert sample(house, "pylon_requests_total", **latest, status_code="200") == 3
    assert sample(house, "pylon_request_duration_seconds_count", **latest, status_code="200") == 3
    assert sample(house, "pylon_requests_in_progress", **latest, status_code="200") == 0
    numbered = "/api/v1/subnet/{netuid}/block/{number}/neurons"
    assert sample(house, "pylon_requests_total", **labels, path=numbered, status_code="404") == 1
    assert sample(house, "pylon_requests_total", **labels, path="*", status_code="404") == 2
    brewed = {"app_name": "bittensor-pylon", "method": "*", "path": "*"}
    assert sample(house, "pylon_requests_total", **brewed, status_code="404") == 1


# --- the document ------------------------------------------------------------------------------------------------


def document(house: ChainHouse) -> dict[str, Any]:
    found: dict[str, Any] = house.client().get("/schema/openapi.json").get_json()
    return found


def assert_documented(house: ChainHouse, method: str, path: str, status: int) -> None:
    rule, _ = house.app.url_map.bind("localhost").match(path, method, return_rule=True)

    assert str(status) in document(house)["paths"][template(rule.rule)][method.lower()]["responses"]


def test_every_route_is_documented_with_its_access_and_its_refusals(house: ChainHouse) -> None:
    paths = {path: told for path, told in document(house)["paths"].items() if path.startswith("/api/v1/")}

    assert len(paths) == 29
    for path, operations in paths.items():
        for method, told in operations.items():
            if method == "parameters":
                continue
            statuses = set(told["responses"])
            assert "500" in statuses
            assert statuses & {"200", "201"}
            if "/subnet/" in path:
                assert {"401", "403", "404", "429"} <= statuses
                assert ("308" in statuses) == ("/identity/" in path)
            assert ("413" in statuses) == (method in ("put", "post"))


def test_the_document_has_the_schemas_that_check(house: ChainHouse) -> None:
    told = document(house)
    put = told["paths"]["/api/v1/identity/{identity_name}/subnet/{netuid}/weights"]["put"]
    schema = put["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    weights = told["components"]["schemas"][schema]

    assert weights["required"] == ["weights"]
    assert weights["properties"]["weights"]["additionalProperties"]["type"] == "number"
    assert all(ref.split("/")[-1] in told["components"]["schemas"] for ref in _refs(told))


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value and "/schemas/" in value["$ref"]:
            yield value["$ref"]
        for inner in value.values():
            yield from _refs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _refs(inner)


@pytest.mark.parametrize("path", ["/schema", "/schema/", "/schema/swagger"])
def test_the_document_s_page_loads_nothing_from_elsewhere(client: FlaskClient, path: str) -> None:
    page = client.get(path)

    assert page.status_code == 200
    assert "/schema/openapi.json" in page.text
    assert "//" not in page.text.replace("</", "").replace("// ", "").replace("http://www.w3.org", "")
