"""The documents say everything that there is, and nothing that is not."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from flask import Flask

from grid_node.chain.pylon import PylonSettings, choose_backend
from grid_node.errors import InvalidMessage, error_table
from grid_node.predictions.messages import REQUIRED, Prediction, check_base
from grid_node.predictions.rules import VERDICTS
from grid_node.settings import Settings, env_name
from scripts import reference

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CHANGELOG.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")))
FILE = re.compile(r"`((?:grid_node|events|tests|scripts|deploy|benchmarks|migrations|clients)/[\w./-]+)`")
TEXT = (ROOT / "docs" / "reference.md").read_text()


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    with reference.example_app() as app:
        yield app


def test_the_reference_is_what_the_code_says() -> None:
    assert reference.reference() == TEXT, "docs/reference.md is stale: run `make reference`"


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_setting_has_a_meaning_and_is_in_the_reference(field: "dataclasses.Field[Any]") -> None:
    assert field.metadata["help"]
    assert f"`{env_name(field.name)}`" in TEXT


def test_every_event_is_in_the_reference(app: Flask) -> None:
    served = {
        namespace: {name for name in events if name not in ("connect", "disconnect", "*")}
        for namespace, events in app.extensions["grid_node"].sockets.server.handlers.items()
    }

    assert served == {namespace: set(events) for namespace, events in reference.EVENTS.items()}
    assert all(f"### `{name}`" in TEXT for events in served.values() for name in events)


def test_every_push_is_in_the_reference() -> None:
    text = (ROOT / "events" / "publisher.py").read_text()
    sent = set(re.findall(r'_(?:send|push)\("([\w.]+)"', text)) | set(re.findall(r'\["([\w.]+)",', text))

    assert len(sent) > 5
    assert sent == set(reference.PUSHES)


def test_every_field_of_a_request_is_in_the_reference() -> None:
    fields = {
        name
        for events in reference.EVENTS.values()
        for taken, _answer in events.values()
        for one in taken
        for name in reference.member_names(one)
    }

    assert len(fields) > 20
    assert all(f"`{name}`" in TEXT for name in fields)


def test_the_members_of_a_prediction_are_those_that_are_read() -> None:
    read = {field.name for field in dataclasses.fields(Prediction)} - {"body", "body_sha256"}

    assert set(reference.PREDICTION.rows) == read | {"prediction_date"}
    assert set(REQUIRED) == reference.PREDICTION.required


@pytest.mark.parametrize("described", [reference.PREDICTION_MESSAGE, reference.HEARTBEAT])
def test_the_base_members_of_a_message_are_those_that_are_demanded(described: reference.Members) -> None:
    message_type = described.rows["message_type"][1].split("`")[1]

    with pytest.raises(InvalidMessage) as caught:
        check_base({}, message_type)
    assert set(caught.value.data["fields"]) == set(reference.BASE) | {"message_type"}
    assert set(reference.BASE) < described.required


def test_every_verdict_is_in_the_reference() -> None:
    assert all(f"| `{code}` |" in TEXT and f"`{text}`" in TEXT for code, texts in VERDICTS.items() for text in texts)


def test_every_error_code_is_in_the_reference() -> None:
    assert all(f"| `{code}` |" in TEXT for code in error_table())


def test_every_error_code_has_one_class() -> None:
    """A face tells errors apart by code, so two classes must not share one by accident."""
    names = re.findall(r'code, status, text = "(\w+)"', (ROOT / "grid_node" / "errors.py").read_text())

    assert len(names) == len(set(names))


def test_every_metric_is_in_the_reference(app: Flask) -> None:
    families = [family.name for family in app.extensions["grid"].metrics.registry.collect()]

    assert len(families) > 10
    assert all(f"`{name}`" in TEXT or f"`{name}_total`" in TEXT for name in families)


def test_every_command_is_in_the_reference_with_its_help(app: Flask) -> None:
    commands = [row for name, row in named_commands(app) if name not in reference.LIBRARIES]

    assert len(commands) > 15
    for path, command in commands:
        assert f"`{path}`" in TEXT
        assert command.help, path


def test_every_reason_of_a_score_is_in_the_scoring_guide() -> None:
    guide = (ROOT / "docs" / "scoring.md").read_text()

    missing = [name for name, kind, _ in reference.reason_rows() if kind != "fraud" and name not in guide]
    assert missing == []


def test_every_operators_setting_that_a_document_names_exists() -> None:
    known = {env_name(field.name) for field in dataclasses.fields(Settings)} | {"GRID_URL", "GRID_API_KEY"}
    known |= {"GRID_WORKER_API_KEY", "GRID_NODE_URL"}
    known |= {"GRID_AUTH_TIMEOUT", "GRID_MESSAGE_SKEW"}  # the changelog says what they are called now
    named = {name for document in DOCUMENTS for name in re.findall(r"GRID_[A-Z_]+[A-Z]", (ROOT / document).read_text())}

    assert named - known == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / document).read_text())

    assert [target for target in targets if not (ROOT / document).parent.joinpath(target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document: str) -> None:
    named = FILE.findall((ROOT / document).read_text())

    assert [name for name in named if not (ROOT / name).exists()] == []


def named_commands(app: Flask) -> Iterator[tuple[str, tuple[str, click.Command]]]:
    for name, command in app.cli.commands.items():
        for leaf in leaves(f"flask {name}", command):
            yield name, leaf


def leaves(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from leaves(f"{path} {name}", child)


def test_every_setting_in_the_deployment_files_exists() -> None:
    known = {env_name(field.name) for field in dataclasses.fields(Settings)}
    named = {
        name for file in (ROOT / "deploy").iterdir() for name in re.findall(r"GRID_[A-Z_]+[A-Z]", file.read_text())
    }

    assert len(named) >= 5
    assert named - known == set()


def test_every_setting_of_the_chain_is_in_its_guide() -> None:
    guide = (ROOT / "docs" / "chain.md").read_text()
    names = [env_name(field.name) for field in dataclasses.fields(Settings) if field.name.startswith("chain_")]

    assert len(names) > 20
    assert [name for name in names if f"`{name}`" not in guide] == []


def test_the_example_of_pylons_variables_is_a_configuration() -> None:
    example = PylonSettings.load({"PYLON_ENV_FILE": str(ROOT / "deploy" / "pylon.env.example")})

    assert [(one.name, one.netuid) for one in example.identities] == [("sn1", 1)]
    assert choose_backend(Settings.load({}), example)[0] == "subtensor"
    assert example.notes == ()


def test_every_test_that_is_said_to_hold_a_promise_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "tests.md").read_text())

    missing = [(file, name) for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]
    assert len(named) > 50
    assert missing == []
