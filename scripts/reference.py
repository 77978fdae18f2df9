"""Writes docs/reference.md from the code: `make reference`. tests/test_docs.py fails when the file is stale."""

import ast
import dataclasses
import inspect
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from flask import Flask
from marshmallow import Schema, fields, validate
from prometheus_client import Metric

from app import create_app
from events import chain, publisher, v1
from grid_node.chain import schemas as chain_schemas
from grid_node.cli.start import flag
from grid_node.errors import GridError, error_table
from grid_node.generation import schemas
from grid_node.generation.views import ERROR_TEXTS
from grid_node.hosting import dataset_schemas as datasets
from grid_node.hosting import encrypted
from grid_node.hosting import schemas as models
from grid_node.identity import schemas as identity
from grid_node.identity.schemas import Authenticate, KeyAuthenticate, Position
from grid_node.predictions import messages
from grid_node.predictions.game_schemas import FilterSchema
from grid_node.predictions.receipts import REJECTED_STATUS
from grid_node.predictions.rules import ACCEPTED, VERDICTS
from grid_node.predictions.submission import ACCEPTED as ACCEPTED_STATUS
from grid_node.runners import model_requests, run_requests
from grid_node.scoring.rules import GATES
from grid_node.settings import Settings, env_name

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "reference.md"


@dataclasses.dataclass(frozen=True)
class Members:
    """Members of a message that no schema reads: {name: (type, rule)}. `required` are those that may not be absent."""

    title: str
    rows: dict[str, tuple[str, str]]
    required: frozenset[str]


BASE = {
    "message_id": ("text", "UUID, version 4"),
    "sender_hotkey": ("text", "SS58 of the miner's hotkey, prefix 42; `key:<id>` in a private grid"),
    "timestamp": ("time", "RFC 3339 with an offset"),
}
HEARTBEAT = Members("", {**BASE, "message_type": ("text", "is `heartbeat`")}, frozenset({*BASE, "message_type"}))
PREDICTION_MESSAGE = Members(
    'A PredictionMessage, or `{"messages": [...]}` with several of them:',
    {
        **BASE,
        "message_type": ("text", "is `prediction`"),
        "receiver_hotkey": ("text", "SS58 of the node"),
        "prediction": ("object", "what is judged, below"),
        "signature": (
            "text",
            "`0x` and 128 hex digits over the ASCII text `grid.v1.prediction.<lower hex sha256>` of the canonical"
            " message (RFC 8785) without `signature`; none in a private grid",
        ),
    },
    frozenset({*BASE, "message_type", "receiver_hotkey", "prediction", "signature"}),
)
_MONEY = "text or number"
PREDICTION = Members(
    "Members of `prediction`:",
    {
        "prediction_id": ("text", f"matches `{messages.PREDICTION_ID.pattern}`; a miner's own, used once"),
        "game_id": ("text", f"matches `{messages.GAME_ID.pattern}`"),
        "team_a": ("text", f"the game's, length 0 to {messages.TEAM_LENGTH}"),
        "team_b": ("text", f"the game's, length 0 to {messages.TEAM_LENGTH}"),
        "wager": (_MONEY, "two decimals at most"),
        "predicted_outcome": ("number or text", "0 team A, 1 team B, 2 a draw; as text also a team's name or `tie`"),
        "predicted_odds": (_MONEY, "the odds of that outcome; absent it is `missing_odds`"),
        "team_a_odds": (_MONEY, "within 0.01 of the game's"),
        "team_b_odds": (_MONEY, "within 0.01 of the game's"),
        "tie_odds": (_MONEY, "within 0.01 of the game's; null or absent where it has none"),
        "confidence_score": ("number", "0 to 1"),
        "model_name": ("text", f"length 0 to {messages.MODEL_NAME_LENGTH}"),
        "prediction_date": ("text", f"length 0 to {messages.DATE_LENGTH}; kept and never used"),
        "miner_uid": ("whole number", "the uid of the hotkey, where a chain gives it one"),
    },
    frozenset(messages.REQUIRED),
)
PREDICTION_STATUS = Members("", {"prediction_id": ("text", "one of the miner's own")}, frozenset({"prediction_id"}))
SIGNATURE_ID = Members(
    "Beside the document:",
    {
        "id": ("text", "of the model"),
        "if_match": ("text", "the ETag of the state that is to be changed"),
    },
    frozenset({"id"}),
)
IDEMPOTENCY_KEY = Members("Beside the document:", {"idempotency_key": ("text", "1 to 128 characters")}, frozenset())
HEALTH = Members(
    "",
    {
        "status": ("text", "the worker's own word, or `OFFLINE`"),
        "...": ("any", "the rest of the worker's health-check"),
    },
    frozenset({"status"}),
)


@dataclasses.dataclass(frozen=True)
class Part:
    """What a schema reads of a message, under a title. `otherwise`: fields that another schema checks, {name: (type,
    rule)}; `without`: those that stand in another part."""

    title: str
    schema: type[Schema]
    otherwise: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    without: frozenset[str] = frozenset()


INPUT = {"input": ("object", "what the model's signature asks for")}
CREATE_PARTS = (
    Part("What HTTP has in its address and headers:", v1.CreateSchema, without=frozenset(INPUT)),
    Part(
        "Beside it, the body of `POST /v1/predictions`; `version` is for those who name no `model`:",
        run_requests.NewRunSchema,
        INPUT,
    ),
)
Taken = type[Schema] | Members | Part

EVENTS: dict[str, dict[str, tuple[tuple[Taken, ...], str]]] = {
    "/": {
        "generate": (
            (schemas.GenerateSchema,),
            "`task` (and `duplicate` for a replay); updates follow as `task_update`",
        ),
        "task_status": ((schemas.StatusSchema,), "`task`; with `wait_s` once it has an update above `after_seq`"),
        "cancel_task": ((schemas.TaskIdSchema,), "`task`; an ended task is returned unchanged"),
        "resume": ((schemas.ResumeSchema,), "`task`, `updates` above `after_seq`, `recovered`; later ones follow"),
        "tasks": ((schemas.ListSchema,), "`tasks`, newest first, and `next`"),
        "/models": ((models.PageSchema,), "`models`: ids, oldest first; with `limit` also `next`"),
        "/detailed_models_list": ((models.DetailedPageSchema,), "`models`: what is known of each newest version"),
        "/is_model_copy_allowed": (
            (models.ReferenceSchema,),
            "`success`, and `error` where a copy is not allowed; also as `/is_model_copy_allowed/<model_id>`",
        ),
        "/get_model": ((models.FetchSchema,), "`serialized_model`; also as `/get_model/<model_id>`"),
        "/serve_model": ((models.ServeSchema,), "`message`: `Model saved with id: <model_id>`"),
        "/delete_model": ((models.DeleteSchema,), "`message`; without `version` all of them go"),
        "/run_inference": ((models.InferenceSchema,), "`prediction`, and `outputs` where there are several"),
        "/search-encrypted-models": (
            (encrypted.EncryptedSearchSchema,),
            "`workers` and `crypto_provider`; with `details` also `set` and `shares`",
        ),
        "/dataset-tags": ((datasets.NothingSchema,), "the list of all tags, sorted"),
        "/search": ((datasets.SearchSchema,), "`content`: whether one dataset matches every term"),
        "/register_dataset": ((datasets.RegisterSchema,), "`message`: `Dataset saved with id: <dataset_id>`"),
        "/tag_dataset": ((datasets.TagSchema,), "`tags` afterwards, sorted"),
        "/delete_dataset": ((datasets.DatasetSchema,), "`message`"),
        "/datasets": ((models.PageSchema,), "`datasets`, oldest first; with `limit` also `next`"),
    },
    "/worker": {
        "authenticate": ((Authenticate, KeyAuthenticate), "`worker`, `session_id`, `last_seq`; once for each socket"),
        "pull_task": ((schemas.PullSchema,), "`task` (a lease, or null), `retry_after`, `cooldown`"),
        "renew_lease": ((schemas.LeaseIdSchema,), "`lease_expires_at`, `deadline`"),
        "submit_result": ((schemas.SubmitSchema,), "`task_id`, `lease_id`, `state`; the verdict if there is one"),
        "skip": ((schemas.SkipSchema,), "`cooldown`"),
        "feedback": ((schemas.FeedbackSchema,), "`feedback` above `after_seq`, `last_seq`"),
        "worker_status": ((schemas.EmptySchema,), "`worker`, `leases`, `cooldown`, `mean_score`, `strong`, `queue`"),
    },
    "/predictions": {
        "authenticate": (
            (Authenticate, KeyAuthenticate),
            "the signed message `authenticated`: `receiver_hotkey`, `client_nonce`, `session_id`, `uid`,"
            " `heartbeat_interval`, `connection_timeout`, `max_in_flight`, `max_message_bytes`, `max_batch`,"
            " `last_seq`, `epoch`, `seq`, `recovered`; then the updates after `position`, or a snapshot",
        ),
        "prediction": (
            (PREDICTION_MESSAGE, PREDICTION),
            "the receipt, a signed message `confirmation`: `prediction_id`, `message`, `code`, `body_sha256`,"
            " `received_at`, `seq`, `miner_stats`, and `accepted_odds`, or `error`, `status` and `current`;"
            " of a batch `results`, one body for each message",
        ),
        "prediction_status": ((PREDICTION_STATUS,), "`prediction_id`, `state`, `receipt`, `settlement`"),
        "games": ((FilterSchema,), "`games` by their id, `epoch`, `seq`"),
        "resume": (
            (Position,),
            "`recovered`, `epoch`, `seq`, and `replayed` or `reason`; updates or a snapshot follow",
        ),
        "update_ack": ((Position,), "nothing more; it counts for every update up to `seq`"),
        "heartbeat": ((HEARTBEAT,), "the node's HeartbeatMessage, with `epoch` and `seq` and without `success`"),
    },
    "/pc": {
        "predict_signature.create": (
            (model_requests.RegistrationSchema, IDEMPOTENCY_KEY),
            "`id`, `credential`, `config`, as over HTTP",
        ),
        "predict_signature.get": ((model_requests.NamedLookSchema,), "the document, and what the node knows of it"),
        "predict_signature.update": (
            (model_requests.RegistrationSchema, SIGNATURE_ID),
            "`id`, `credential`, `config`",
        ),
        "predict_signature.patch": (
            (SIGNATURE_ID,),
            "`id`, `credential`, `config`; the other members are a JSON merge patch (RFC 7396)",
        ),
        "predict_signature.delete": ((model_requests.NamedRemovalSchema,), "`id`, `deleted`"),
        "models.list": ((model_requests.ModelsSchema,), "`models`, `next`"),
    },
    "/v1": {
        "predictions.create": (CREATE_PARTS, "the prediction itself, without `success`"),
        "predictions.get": ((v1.IdSchema,), "the prediction itself, without `success`"),
        "predictions.list": ((v1.ListSchema,), "`previous`, `next`, `results`, newest first, without `success`"),
        "predictions.cancel": ((v1.IdSchema,), "the prediction itself, without `success`"),
        "predictions.delete": ((v1.IdSchema,), "`success: true`, nothing more"),
        "predictions.subscribe": (
            (v1.SubscribeSchema,),
            "`success: true`, `prediction`, `recovered`; what follows `after` comes as `prediction.event`",
        ),
    },
    "/runner": {"health": ((HEALTH,), "nothing more")},
    "/chain": {
        "block": ((), "`number`, `hash`, `timestamp` of the newest block"),
        "extrinsic": ((chain.ExtrinsicSchema,), "the extrinsic, decoded"),
        "neurons": ((chain.NeuronsSchema,), "`block`, `neurons` by hotkey"),
        "validators": ((chain.ValidatorsSchema,), "`block`, `validators`, most stake first"),
        "commitments": ((chain.HotkeySchema,), "`block`, `commitments` by hotkey; with `hotkey` its own one"),
        "certificates": ((chain.HotkeySchema,), "certificates by hotkey; with `hotkey` its own one"),
        "weights_status": ((), "what became of the identity's newest weights"),
        "set_weights": ((chain_schemas.WeightsRequest,), "`detail`, `count`, `job_id`, `dropped`"),
        "set_commitment": ((chain_schemas.CommitmentRequest,), "`detail`, once it is final"),
        "subscribe_heads": ((), "`detail`; pushes `head` from now on, the newest first"),
    },
}
"""What each event takes and answers. Which events there are is read from the server; a test compares the two."""

ACKS_OF_MOST = "Acks carry `success: true` and what is named; errors are those below."
ACKS = {
    "/pc": 'A socket connects with `{"key": "..."}` as its auth, a key with the scope `runner`. Acks are the bodies'
    "\nthat HTTP answers, without `success`; errors are those below, with `success: false`.",
    "/v1": 'A socket connects with `{"key": "..."}` as its auth, a key with the scope `client`. Acks are the bodies'
    "\nthat HTTP answers; errors are those below, with `success: false` and the members of problems.",
    "/chain": 'A socket connects with `{"token"}` (open access) or `{"identity", "token"}` as its auth. Acks and'
    " refusals are the bodies that HTTP has below `/api/v1`; one that says when to come again has `retry_after` too.",
}
"""What is said of all acks of a namespace."""

PUSHES = {
    "task_update": ("/", "an update of a task that the socket created or resumed"),
    "closing": (
        "all",
        "why the node ends the connection: `code`, `reason`, `error`, `retry_after`",
    ),
    "challenge": ("/worker and /predictions", "what `authenticate` must answer"),
    "feedback": ("/worker", "the verdict on a result"),
    "lease_cancelled": ("/worker", "`task_id`, `lease_id`, `reason`: the work is pointless"),
    "game_update": (
        "/predictions",
        "a signed message: `epoch`, `seq`, `kind` (delta or snapshot), `updated_games`, of a snapshot `part` and"
        " `parts`; a large one as `encoding`, `raw_size` and `data` to who offered `compression`",
    ),
    "heartbeat": ("/predictions", "the node's HeartbeatMessage: `epoch`, `seq`"),
    "ready": ("/runner", "`runner_id`, `model_id`, `upload_url`, `max_message_bytes`: the agent is in"),
    "http": (
        "/runner",
        "a call for the worker: `call_id`, `method`, `path`, `headers`, `json`, `timeout_s`; its ack is `call_id`,"
        " `status`, `json`, `ms`, and `code` where the agent itself refuses",
    ),
    "replaced": ("/runner", "the same agent came by another socket: this one ends"),
    "head": ("/chain", "`number`, `hash`, `timestamp` of each new block, after `subscribe_heads`"),
    "prediction.event": ("/v1", "`id`, `event`, `data`, `offset`, as server-sent events have them"),
}

LIBRARIES = {"db", "openapi", "routes", "run", "shell"}
"""Commands that Flask and its extensions bring and document themselves."""

HEAD = """# Reference

Generated by `make reference` from the code; do not edit. See [architecture.md](architecture.md) for how the parts fit,
[operators.md](operators.md) for running a node, [clients.md](clients.md) for the Python package, and
[miners.md](miners.md) for the client of predictions.
"""


def main() -> int:
    TARGET.write_text(reference())
    return 0


def reference() -> str:
    """The whole document."""
    with example_app() as app:
        parts = [
            HEAD,
            section("Settings", settings_text(), settings_rows(), ("variable", "flag", "default", "unit", "meaning")),
            *event_sections(),
            section("Pushes", "From the node to a socket.", push_rows(), ("event", "namespace", "meaning")),
            section("Closing codes", CLOSING, closing_rows(), ("code", "reason", "error", "retry_after")),
            section("HTTP routes", ROUTES, route_rows(app), ("route", "methods", "what it does")),
            section("Error codes", ERRORS, error_rows(), ("code", "status", "text", "more")),
            section("Verdicts on predictions", VERDICT_TEXT, verdict_rows(), ("code", "status", "texts")),
            section("Ends of a task", ENDS, list(ERROR_TEXTS.items()), ("code", "text")),
            section("Reasons of a score", REASONS, reason_rows(), ("reason", "kind", "when")),
            section("Metrics", METRICS, metric_rows(app), ("metric", "type", "labels", "meaning")),
            section("Commands", COMMANDS, command_rows(app), ("command", "arguments", "what it does")),
        ]
    return "\n".join(parts)


def settings_text() -> str:
    return (
        "A flag of `grid-node serve` beats the environment, which beats `.env` in the working directory, which beats\n"
        "the default. Nonsense ends every entry point with status 2 before anything is opened."
    )


CLOSING = "Bodies of the event `closing`, after which the node ends the connection."
ROUTES = "A trailing slash is tolerated. The OpenAPI document of the routes that take JSON is served by the node."
ERRORS = """Every refusal has the same body as an ack, as an HTTP answer and (with `extended`) on the raw WebSocket:
`{"success": false, "error": text, "code": code, "status": status, ...}`. Answers with status 429 and 503 carry
`retry_after` in seconds, and the header `Retry-After` in whole seconds."""
VERDICT_TEXT = """`code` and `message` of a receipt, in the order of the rules: the first that fails is the verdict.
All of them are stored, signed, and use the id up. See [predictions.md](predictions.md)."""
ENDS = "`error.code` of a task that ended as `failed` or `cancelled`."
REASONS = "Codes in `reasons`: what lowered a score, worst first. See [scoring.md](scoring.md)."
METRICS = """In Prometheus' text format at `/metrics`. What is counted from rows (`grid_tasks`, `grid_queue_depth`, ...)
is of the whole grid, whichever process tells it: with several nodes on one database take the maximum, not the sum."""
COMMANDS = "With `FLASK_APP=app`. Exit status 0: done; 1: nothing was changed, and why; 2: usage or configuration."


@contextmanager
def example_app() -> Iterator[Flask]:
    """An app with every route, event, command and metric, on an empty folder."""
    with tempfile.TemporaryDirectory(prefix="grid-reference-") as folder:
        app = create_app(Settings.load({}, data_dir=Path(folder)))
        try:
            yield app
        finally:
            app.extensions["grid"].bells.close()
            app.extensions["grid"].store.close()


# --- settings ---------------------------------------------------------------------------------------------------------


def settings_rows() -> list[tuple[str, ...]]:
    return [
        (
            code(env_name(field.name)),
            code(flag(field.name)) if field.name != "async_mode" else "",
            code(str(field.default)) if str(field.default) else "empty",
            field.metadata["unit"],
            field.metadata["help"] + expects(field),
        )
        for field in dataclasses.fields(Settings)
    ]


def expects(field: "dataclasses.Field[Any]") -> str:
    said = field.metadata["expects"]
    return f" ({said})" if said and said != "a positive number" else ""


# --- events -----------------------------------------------------------------------------------------------------------


def event_sections() -> list[str]:
    return [
        f"## Events of `{namespace}`\n\n{ACKS.get(namespace, ACKS_OF_MOST)}\n\n"
        + "\n".join(event_text(name, taken, answer) for name, (taken, answer) in events.items())
        for namespace, events in EVENTS.items()
    ]


def event_text(name: str, taken: Iterable[Taken], answer: str) -> str:
    parts = [f"### `{name}`\n\nAck: {answer}.\n"]
    for one in taken:
        if isinstance(one, Members | Part) and one.title:
            parts.append(f"{one.title}\n")
        if rows := member_rows(one):
            parts.append(table(rows, ("field", "type", "default", "rule")))
    return "\n".join(parts)


def member_names(taken: Taken) -> set[str]:
    if isinstance(taken, Part):
        return set(taken.schema().fields) - taken.without
    return set(taken.rows) if isinstance(taken, Members) else set(taken().fields)


def member_rows(taken: Taken) -> list[tuple[str, ...]]:
    if isinstance(taken, Members):
        return [
            (code(name), kind, "required" if name in taken.required else "", rule)
            for name, (kind, rule) in taken.rows.items()
        ]
    if isinstance(taken, Part):
        return [
            part_row(taken, name, field) for name, field in taken.schema().fields.items() if name not in taken.without
        ]
    return [field_row(name, field) for name, field in taken().fields.items()]


def part_row(part: Part, name: str, field: "fields.Field[Any]") -> tuple[str, ...]:
    if name not in part.otherwise:
        return field_row(name, field)
    kind, rule = part.otherwise[name]
    return code(name), kind, "required" if field.required else "", rule


def field_row(name: str, field: "fields.Field[Any]") -> tuple[str, ...]:
    if field.required:
        default = "required"
    else:
        value = field.load_default
        default = "" if value in (None, ...) or not isinstance(value, str | int | float) else code(str(value).lower())
    return code(name), type_name(field), default, rules(field)


def type_name(field: "fields.Field[Any]") -> str:
    if isinstance(field, fields.List):
        return f"list of {type_name(field.inner)}"
    names: dict[type, str] = {
        models.NewId: "id",
        models.AskedId: "id",
        models.Flag: "true, false, `True` or `False`",
        models.Encoding: "`ISO-8859-1` or `base64`",
        models.VersionWish: "`new` or whole number",
        models.Object: "object",
        datasets.Terms: "text, whole number, or list of those",
        identity.Text: "text",
        identity.Whole: "whole number",
        identity.Moment: "time",
        fields.Boolean: "boolean",
        fields.Integer: "whole number",
        fields.Float: "number",
        fields.String: "text",
        fields.Nested: "object",
        fields.Dict: "object",
        chain.BlockName: "whole number or text",
        fields.Raw: "binary or text",
    }
    return next((name for kind, name in names.items() if isinstance(field, kind)), "value")


def rules(field: "fields.Field[Any]") -> str:
    return "; ".join(rule for rule in map(rule_text, field.validators) if rule)


def rule_text(rule: Callable[[Any], Any]) -> str:
    if isinstance(rule, validate.Range):
        return f"{_edge(rule.min)} to {_edge(rule.max)}" if rule.max is not None else f"at least {rule.min}"
    if isinstance(rule, validate.Length):
        return f"length {rule.min or 0} to {rule.max}"
    if isinstance(rule, validate.OneOf):
        return "one of " + ", ".join(code(str(choice)) for choice in rule.choices)
    if isinstance(rule, validate.Regexp):
        return f"matches {code(str(rule.regex.pattern))}"
    if isinstance(rule, validate.Equal):
        return f"is {code(str(rule.comparable))}"
    return ""


def _edge(value: Any) -> str:
    return "…" if value is None else str(value)


def push_rows() -> list[tuple[str, ...]]:
    return [(code(name), namespace, text) for name, (namespace, text) in PUSHES.items()]


def closing_rows() -> list[tuple[str, ...]]:
    bodies = [value for value in vars(publisher).values() if isinstance(value, dict) and "reason" in value]
    return [
        (str(body["code"]), code(body["reason"]), body["error"], str(body.get("retry_after", "")))
        for body in sorted(bodies, key=lambda body: (body["code"], body["error"]))
    ]


# --- HTTP, errors, reasons, metrics, commands -------------------------------------------------------------------------


def route_rows(app: Flask) -> list[tuple[str, ...]]:
    rows = set()
    for rule in app.url_map.iter_rules():
        methods = ", ".join(sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}))
        text = "" if rule.rule.startswith("/schema") else summary(app.view_functions[rule.endpoint])
        rows.add((code(rule.rule.rstrip("/") or "/"), "WebSocket" if rule.websocket else methods, text))
    return sorted(row for row in rows if not row[0].startswith("`/static"))


def error_rows() -> list[tuple[str, ...]]:
    return [
        (
            code(error.code),
            str(error.status),
            error.text,
            own_doc(error) if error is not GridError else "a fault of ours",
        )
        for error in error_table().values()
    ]


def verdict_rows() -> list[tuple[str, ...]]:
    return [
        (
            code(name),
            str(ACCEPTED_STATUS if name == ACCEPTED else REJECTED_STATUS),
            "; ".join(code(text) for text in texts),
        )
        for name, texts in VERDICTS.items()
    ]


def reason_rows() -> list[tuple[str, ...]]:
    """Codes of gates, codes with which a scorer refuses bytes, codes of the submission."""
    rows = {("below_threshold", "score", "the score is below the threshold")}
    for gate, factors in GATES.items():
        rows.update((factor.reason, f"gate `{gate}`", f"signal `{factor.signal}`") for factor in factors)
    rows.update((name, "not judged", text) for name, text in refusals().items())
    rows.update((name, "fraud", text) for name, text in FRAUD.items())
    return [(code(name), kind, text) for name, kind, text in sorted(rows)]


FRAUD = {
    "bad_signature": "the signature does not cover these bytes, this task and this node",
    "sha256_mismatch": "the bytes have another digest than the worker said",
}


def refusals() -> dict[str, str]:
    """Every `InvalidAsset(reason, detail)` in the scorers: the reason, and its details in words."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "grid_node" / "scoring").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InvalidAsset" and len(node.args) == 2:
                for name in constants(node.args[0]):
                    found.setdefault(name, set()).add(detail(node.args[1]))
    return {name: "; ".join(sorted(texts - {""})) for name, texts in found.items()}


def constants(node: ast.expr) -> list[str]:
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def detail(node: ast.expr) -> str:
    """The text of a literal or an f-string, `…` for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _families(collector: Any) -> list[Metric]:
    """What a collector tells of; those of the process and of Python say it only when they measure."""
    of_ours = hasattr(collector, "_labelnames")
    return list(collector.describe() if of_ours else collector.collect())


def metric_rows(app: Flask) -> list[tuple[str, ...]]:
    registry = app.extensions["grid"].metrics.registry
    rows = []
    for collector in registry._collector_to_names:
        for family in _families(collector):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = getattr(collector, "_labelnames", None) or sorted(
                {name for s in family.samples for name in s.labels}
            )
            rows.append((code(name), family.type, ", ".join(labels), family.documentation))
    return sorted(rows)


def command_rows(app: Flask) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("`grid-node serve`", "every setting as a flag", "Migrate the database and serve.")]
    for name in sorted(app.cli.commands.keys() - LIBRARIES):
        rows += leaf_rows(f"flask {name}", app.cli.commands[name])
    return rows


def leaf_rows(path: str, command: click.Command) -> list[tuple[str, ...]]:
    if isinstance(command, click.Group):
        return [row for name in sorted(command.commands) for row in leaf_rows(f"{path} {name}", command.commands[name])]
    shown = " ".join(argument_text(parameter) for parameter in command.params)
    return [(code(path), shown, (command.help or "").split("\n")[0])]


def argument_text(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return (parameter.metavar or str(parameter.name)).upper()
    return f"[{parameter.opts[0]}]"


# --- Markdown ---------------------------------------------------------------------------------------------------------


def section(title: str, text: str, rows: Iterable[tuple[str, ...]], head: tuple[str, ...]) -> str:
    return f"## {title}\n\n{text}\n\n{table(rows, head)}"


def table(rows: Iterable[tuple[str, ...]], head: tuple[str, ...]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    return f"`{text}`"


def summary(view: Any) -> str:
    """The first sentence of a docstring."""
    text = inspect.getdoc(getattr(view, "__wrapped__", view)) or inspect.getdoc(view) or ""
    return " ".join(text.split("\n\n")[0].split())


def own_doc(error: type[GridError]) -> str:
    return " ".join((error.__dict__.get("__doc__") or "").split())


if __name__ == "__main__":
    sys.exit(main())
