"""Two owners, every route and event that takes an id: the other's id is not there, and nothing changes."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.promises.runner_yard import BASE, SIGNATURE, SIGNATURES, WEBHOOK, Person, token_of, yard

MODEL, PREDICTION, FILE = "model_not_found", "prediction_not_found", "file_not_found"


class Estate:
    """What Anna has; Bert would like it."""

    def __init__(self, anna: Person, bert: Person) -> None:
        self.anna, self.bert = anna, bert
        self.model = anna.register(name="secret")["id"]
        self.prediction = anna.run("secret")["id"]
        self.version = anna.ask("GET", f"{SIGNATURES}/{self.model}").json()["version"]
        anna.ask("POST", WEBHOOK, json={"id": "7", "status": "processing", "logs": "anna's"})
        form = {"content": ("a.txt", b"anna's")}
        self.file = anna.ask("POST", "/v1/files", files=form).json()["id"]
        self.output = anna.upload("7_0_out.bin", b"anna's").json()["key"]
        self.names = {**vars(self), "account": anna.account}
        self.before = self.all()

    def all(self) -> list[Any]:
        """Everything that Anna sees of it."""
        paths = (
            f"{SIGNATURES}/{self.model}?include=credential", f"{BASE}/models", "/v1/models",
            f"/v1/predictions/{self.prediction}", f"/v1/predictions/{self.prediction}/events",
            f"/v1/predictions/{self.prediction}/deliveries", "/v1/predictions/7", "/v1/predictions/7/events",
            f"/v1/files/{self.file}", "/v1/files", "/v1/webhooks/default/secret",
        )  # fmt: skip
        return [self.anna.ask("GET", path).json() for path in paths]


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    with yard(tmp_path_factory.mktemp("owners")) as node:
        yield Estate(Person(node, "anna"), Person(node, "bert"))


@pytest.fixture
def unchanged(estate: Estate) -> Iterator[None]:
    yield
    assert estate.all() == estate.before


ROUTES = [
    ("GET", SIGNATURES + "/{model}", MODEL),
    ("GET", SIGNATURES + "/{model}?include=credential", MODEL),
    ("PUT", SIGNATURES + "/{model}", MODEL),
    ("POST", SIGNATURES + "/{model}", MODEL),
    ("PATCH", SIGNATURES + "/{model}", MODEL),
    ("DELETE", SIGNATURES + "/{model}", MODEL),
    ("DELETE", SIGNATURES + "/{model}?force=true", MODEL),
    ("GET", "/v1/models/{account}/secret", MODEL),
    ("GET", "/v1/models/{account}/{model}", MODEL),
    ("GET", "/v1/models/{account}/secret/versions", MODEL),
    ("GET", "/v1/models/{account}/secret/versions/{version}", MODEL),
    ("POST", "/v1/models/{account}/secret/predictions", MODEL),
    ("GET", "/v1/predictions/{prediction}", PREDICTION),
    ("DELETE", "/v1/predictions/{prediction}", PREDICTION),
    ("POST", "/v1/predictions/{prediction}/cancel", PREDICTION),
    ("GET", "/v1/predictions/{prediction}/stream", PREDICTION),
    ("GET", "/v1/predictions/{prediction}/events", PREDICTION),
    ("GET", "/v1/predictions/{prediction}/deliveries", PREDICTION),
    ("GET", "/v1/predictions/7", PREDICTION),
    ("POST", "/v1/predictions/7/cancel", PREDICTION),
    ("DELETE", "/v1/predictions/7", PREDICTION),
    ("GET", "/v1/files/{file}", FILE),
    ("DELETE", "/v1/files/{file}", FILE),
    ("GET", "/v1/files/{output}", FILE),
    ("DELETE", "/v1/files/{output}", FILE),
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("method", "path", "code"), ROUTES, ids=[f"{one[0]} {one[1]}" for one in ROUTES])
def test_what_belongs_to_another_is_not_there(estate: Estate, method: str, path: str, code: str) -> None:
    body = {"input": {"prompt": "a"}} if path.endswith("predictions") else {**SIGNATURE, "visibility": "public"}
    given = {"json": body} if method in {"PUT", "POST", "PATCH"} else {}
    answer = estate.bert.ask(method, path.format(**estate.names), **given)
    assert (answer.status_code, answer.json()["code"]) == (404, code)


def filled(value: Any, estate: Estate) -> Any:
    return value.format(**estate.names) if isinstance(value, str) else value


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("namespace", "event", "payload", "code"),
    [
        ("/pc", "predict_signature.get", {"id": "{model}"}, MODEL),
        ("/pc", "predict_signature.get", {"id": "{model}", "include": "credential"}, MODEL),
        ("/pc", "predict_signature.update", {"id": "{model}", **SIGNATURE}, MODEL),
        ("/pc", "predict_signature.patch", {"id": "{model}", "visibility": "public"}, MODEL),
        ("/pc", "predict_signature.delete", {"id": "{model}", "force": True}, MODEL),
        ("/v1", "predictions.create", {"model": "{account}/secret", "input": {"prompt": "a"}}, MODEL),
        ("/v1", "predictions.get", {"id": "{prediction}"}, PREDICTION),
        ("/v1", "predictions.cancel", {"id": "{prediction}"}, PREDICTION),
        ("/v1", "predictions.delete", {"id": "{prediction}"}, PREDICTION),
        ("/v1", "predictions.subscribe", {"id": "{prediction}", "after": None}, PREDICTION),
        ("/v1", "predictions.get", {"id": "7"}, PREDICTION),
    ],
    ids=lambda given: given if isinstance(given, str) and "." in given else None,
)
def test_nor_is_it_for_an_event(estate: Estate, namespace: str, event: str, payload: Any, code: str) -> None:
    socket = estate.bert.socket(namespace)
    try:
        answer = socket.call(event, {name: filled(value, estate) for name, value in payload.items()})
    finally:
        socket.close()
    assert (answer["status"], answer["code"]) == (404, code)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "version", ["{version}", "{account}/secret", "{account}/secret:{version}", "{account}/{model}"]
)
def test_a_version_of_another_cannot_be_run(estate: Estate, version: str) -> None:
    body = {"version": version.format(**estate.names), "input": {"prompt": "a"}}
    answer = estate.bert.ask("POST", "/v1/predictions", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_version")


@pytest.mark.usefixtures("unchanged")
def test_an_upload_by_another_s_key_is_for_no_prediction_of_hers(estate: Estate) -> None:
    answer = estate.bert.upload(f"{estate.prediction}_0_x.bin", b"bert's", **{"X-Prediction-ID": estate.prediction})
    assert answer.status_code == 201


@pytest.mark.usefixtures("unchanged")
def test_a_report_by_another_s_key_is_about_a_prediction_of_his_own(estate: Estate) -> None:
    for id in ("7", estate.prediction):
        said = {"id": id, "status": "succeeded", "output": "bert's"}
        assert estate.bert.ask("POST", WEBHOOK, json=said).status_code == 200
        assert estate.bert.shown(id)["output"] == "bert's"
        assert estate.bert.shown(id)["model"] == f"{estate.bert.account}/external"
    estate.bert.ask("DELETE", f"/v1/predictions/{estate.prediction}")


@pytest.mark.usefixtures("unchanged")
def test_a_token_opens_its_own_prediction_alone(estate: Estate) -> None:
    estate.bert.register(name="mine")
    mine = estate.bert.run("mine")["id"]
    address = f"{estate.bert.node.url}{WEBHOOK}?token={token_of(estate.bert.node, mine)}"
    answer = requests.post(address, json={"id": estate.prediction, "status": "failed"}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (409, "prediction_mismatch")


@pytest.mark.usefixtures("unchanged")
def test_a_worker_of_another_is_not_let_in(estate: Estate) -> None:
    runner = estate.bert.worker(estate.model)
    with pytest.raises(Exception, match="failed to connect"):
        runner.connect()
    runner.close()


def test_whose_output_names_a_file_of_another_does_not_take_it(estate: Estate) -> None:
    """A worker may say any address; the file stays whose it is, also when the prediction's data are removed."""
    url = f"{estate.anna.node.url}{BASE}/files/{estate.output}"
    estate.bert.ask("POST", WEBHOOK, json={"id": "thief", "status": "succeeded", "output": [url]})
    assert "external_output" in estate.bert.shown("thief")["warnings"]
    assert estate.bert.ask("DELETE", "/v1/predictions/thief").status_code == 204
    assert requests.get(url, timeout=60).content == b"anna's"
