"""`/api/v1`: the chain, as Pylon's clients know it. Answers come as bytes that are ready."""

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
from flask import Flask, Response, request
from flask_smorest import Api, Blueprint
from marshmallow import Schema

from grid_node.chain import answers, schemas
from grid_node.chain.pylon import Identity
from grid_node.chain.told import Told
from grid_node.errors import ChainNotFound
from grid_node.http import chain_documents as documents
from grid_node.http.chain_door import ChainDoor, whole
from grid_node.http.chain_errors import tells_chain
from grid_node.http.chain_measuring import measure_requests
from grid_node.http.documents import body_of
from grid_node.http.json_answers import json_answer
from grid_node.services import Services

OA = "/api/v1/subnet/<netuid>"
ID = "/api/v1/identity/<identity_name>/subnet/<netuid>"
AGE = "X-Chain-Age"

WEIGHTS = schemas.WeightsRequest()
COMMITMENT = schemas.CommitmentRequest()
CERTIFICATE = schemas.CertificateRequest()


class Row(NamedTuple):
    """One route below an access of its own."""

    path: str
    method: str
    view: Callable[..., Response]
    answer: type[Schema] | dict[str, Any]
    status: int = 200
    body: type[Schema] | None = None
    waits: bool = True
    """Whether it may ask the chain."""


def register_chain(app: Flask, api: Api, services: Services) -> ChainDoor:
    """Every route of Pylon's API."""
    door = ChainDoor(services)
    measure_requests(app, services.chain.metrics)
    app.before_request(_refuse_doubled_slash)
    app.after_request(door.give_cookie)
    app.after_request(_options)
    documents.describe_access(api)
    api.register_blueprint(ChainRoutes(services, door).blueprint())
    return door


def _refuse_doubled_slash() -> None:
    """Routing takes those at the start of a path for one; those inside match no route."""
    if request.environ["PATH_INFO"].startswith("//") and tells_chain(request):
        raise ChainNotFound


def _options(answer: Response) -> Response:
    """Flask tells by itself which methods there are, with a status that says there is a body."""
    if request.method == "OPTIONS" and answer.status_code == 200 and tells_chain(request):
        answer.status_code = 204
        answer.headers.remove("Content-Type")
    return answer


class ChainRoutes:
    """Loads, calls, dumps. `identity_name` is None on open access."""

    def __init__(self, services: Services, door: ChainDoor) -> None:
        self._chain = services.chain
        self._door = door

    def blueprint(self) -> Blueprint:
        made = Blueprint("chain", __name__, description="A subnet of the chain, as Pylon's clients know it.")
        for row in self._subnet_rows():
            self._add(made, OA + row.path, row, "open", documents.OPEN, documents.OPEN_ACCESS)
        for row in (*self._subnet_rows(), *self._identity_rows()):
            self._add(made, ID + row.path, row, "identity", documents.IDENTITY, documents.IDENTITY_ACCESS)
        for row, refusals, access in self._other_rows():
            self._add(made, row.path, row, "chain", refusals, access)
        return made

    def _subnet_rows(self) -> tuple[Row, ...]:
        block, latest = "/block/<number>", "/block/latest"
        return (
            Row(f"{latest}/neurons", "GET", self.neurons, answers.NeuronsAnswer),
            Row("/block/recent/neurons", "GET", self.recent_neurons, answers.NeuronsAnswer),
            Row(f"{block}/neurons", "GET", self.neurons_at, answers.NeuronsAnswer),
            Row(f"{latest}/validators", "GET", self.validators, answers.ValidatorsAnswer),
            Row(f"{block}/validators", "GET", self.validators_at, answers.ValidatorsAnswer),
            Row(f"{latest}/certificates", "GET", self.certificates, answers.CERTIFICATES),
            Row(f"{latest}/certificates/<hotkey>", "GET", self.certificate, answers.CertificateAnswer),
            Row(f"{latest}/commitments", "GET", self.commitments, answers.CommitmentsAnswer),
            Row(f"{latest}/commitments/<hotkey>", "GET", self.commitment, answers.CommitmentAnswer),
        )

    def _identity_rows(self) -> tuple[Row, ...]:
        pair, taken = answers.CertificatePairAnswer, answers.DetailAnswer
        own = "/block/latest/{}/self"
        return (
            Row(own.format("certificates"), "GET", self.own_certificate, answers.CertificateAnswer),
            Row(own.format("commitments"), "GET", self.own_commitment, answers.CommitmentAnswer),
            Row("/certificates/self", "POST", self.new_certificate, pair, 201, schemas.CertificateRequest),
            Row("/commitments", "POST", self.set_commitment, taken, 201, schemas.CommitmentRequest),
            Row("/weights", "PUT", self.put_weights, answers.WeightsAnswer, 200, schemas.WeightsRequest),
            Row("/weights/status", "GET", self.weights_status, answers.WeightsStatusAnswer, waits=False),
        )

    def _other_rows(self) -> tuple[tuple[Row, tuple[int, ...], list[dict[str, list[str]]]], ...]:
        login = Row(
            "/api/v1/login/identity/<identity_name>",
            "POST",
            self.login,
            answers.LoginAnswer,
            200,
            schemas.LoginRequest,
            waits=False,
        )
        identities = Row("/api/v1/identities", "GET", self.identities, answers.IdentitiesAnswer, waits=False)
        latest = Row("/api/v1/block/latest", "GET", self.latest_block, answers.BlockAnswer)
        extrinsic = Row("/api/v1/block/<number>/extrinsic/<index>", "GET", self.extrinsic, answers.ExtrinsicAnswer)
        status = Row("/api/v1/chain/status", "GET", self.status, answers.ChainStatusAnswer, waits=False)
        return (
            (login, (403, 404, 429), documents.NO_ACCESS),
            (identities, (), documents.NO_ACCESS),
            (latest, documents.BLOCK_LEVEL, documents.OPEN_ACCESS),
            (extrinsic, documents.BLOCK_LEVEL, documents.OPEN_ACCESS),
            (status, documents.OPEN, documents.OPEN_ACCESS),
        )

    def _add(
        self,
        made: Blueprint,
        rule: str,
        row: Row,
        access_name: str,
        refusals: tuple[int, ...],
        access: list[dict[str, list[str]]],
    ) -> None:
        told = refusals + (documents.WAITING if row.waits else ()) + (documents.BODY if row.body else ())
        described = made.doc(
            parameters=documents.parameters(row.waits),
            responses=documents.responses(row.status, row.answer, told),
            security=access,
            **(body_of(row.body) if row.body else {}),
        )
        made.add_url_rule(rule, f"{row.view.__name__}_{access_name}", described(row.view), methods=[row.method])

    # --- who ------------------------------------------------------------------------------------------------------

    def _subnet(self, netuid: str, identity_name: str | None) -> int:
        """Raises what the door raises."""
        number = whole(netuid)
        if identity_name is None:
            self._door.open(request.environ)
        else:
            self._door.identity(request.environ, identity_name, number)
        return number

    def _identity(self, netuid: str, identity_name: str) -> Identity:
        return self._door.identity(request.environ, identity_name, whole(netuid))

    def _timeout(self) -> float:
        return self._door.timeout(request.environ)

    def _told(self, told: Told) -> Response:
        answer = json_answer(request, told.body)
        if told.block is not None:
            answer.headers[AGE] = str(self._chain.reads.age(told.block))
        return answer

    # --- subnets --------------------------------------------------------------------------------------------------

    def _latest(self, kind: str, netuid: str, identity_name: str | None) -> Response:
        number = self._subnet(netuid, identity_name)
        return self._told(self._chain.reads.latest(kind, number, self._timeout()))

    def _at(self, kind: str, netuid: str, block: str, identity_name: str | None) -> Response:
        at = whole(block)
        number = self._subnet(netuid, identity_name)
        return self._told(self._chain.reads.at(kind, number, at, self._timeout()))

    def neurons(self, netuid: str, identity_name: str | None = None) -> Response:
        """Every neuron at the newest block."""
        return self._latest("neurons", netuid, identity_name)

    def neurons_at(self, netuid: str, number: str, identity_name: str | None = None) -> Response:
        """Every neuron at one block."""
        return self._at("neurons", netuid, number, identity_name)

    def recent_neurons(self, netuid: str, identity_name: str | None = None) -> Response:
        """Every neuron, from memory; 503 if nothing there is fresh enough."""
        number = self._subnet(netuid, identity_name)
        return self._told(self._chain.reads.recent(number, self._timeout()))

    def validators(self, netuid: str, identity_name: str | None = None) -> Response:
        """The neurons with a validator's permit at the newest block, most stake first."""
        return self._latest("validators", netuid, identity_name)

    def validators_at(self, netuid: str, number: str, identity_name: str | None = None) -> Response:
        """The neurons with a validator's permit at one block, most stake first."""
        return self._at("validators", netuid, number, identity_name)

    # --- certificates ---------------------------------------------------------------------------------------------

    def certificates(self, netuid: str, identity_name: str | None = None) -> Response:
        """Every certificate of the subnet, by hotkey."""
        return self._latest("certificates", netuid, identity_name)

    def certificate(self, netuid: str, hotkey: str, identity_name: str | None = None) -> Response:
        """The certificate of one hotkey."""
        number = self._subnet(netuid, identity_name)
        return self._told(self._chain.reads.certificate(number, hotkey, self._timeout()))

    def own_certificate(self, netuid: str, identity_name: str) -> Response:
        """The certificate of the identity."""
        identity = self._identity(netuid, identity_name)
        return self._told(self._chain.reads.own_certificate(identity, self._timeout()))

    def new_certificate(self, netuid: str, identity_name: str) -> Response:
        """Make a pair and publish its public half. The private half is told here and kept nowhere."""
        identity = self._identity(netuid, identity_name)
        timeout = self._timeout()
        given = self._door.body(CERTIFICATE)
        return _said(self._chain.writes.generate_certificate(identity, given["algorithm"], timeout), 201)

    # --- commitments ----------------------------------------------------------------------------------------------

    def commitments(self, netuid: str, identity_name: str | None = None) -> Response:
        """Every commitment of the subnet, by hotkey."""
        return self._latest("commitments", netuid, identity_name)

    def commitment(self, netuid: str, hotkey: str, identity_name: str | None = None) -> Response:
        """The commitment of one hotkey."""
        number = self._subnet(netuid, identity_name)
        return self._told(self._chain.reads.commitment(number, hotkey, self._timeout()))

    def own_commitment(self, netuid: str, identity_name: str) -> Response:
        """The commitment of the identity."""
        identity = self._identity(netuid, identity_name)
        return self._told(self._chain.reads.own_commitment(identity, self._timeout()))

    def set_commitment(self, netuid: str, identity_name: str) -> Response:
        """Publish 1 to 128 bytes; answers when they are final. A repetition joins what runs."""
        identity = self._identity(netuid, identity_name)
        timeout = self._timeout()
        given = self._door.body(COMMITMENT)
        return _said(self._chain.writes.set_commitment(identity, given["commitment"], timeout), 201)

    # --- weights --------------------------------------------------------------------------------------------------

    def put_weights(self, netuid: str, identity_name: str) -> Response:
        """Take weights, to be set as soon as the chain takes them. The newest request of an identity wins."""
        identity = self._identity(netuid, identity_name)
        timeout = self._timeout()
        given = self._door.body(WEIGHTS)
        return _said(self._chain.weights.put(identity, given["weights"], timeout))

    def weights_status(self, netuid: str, identity_name: str) -> Response:
        """What became of the identity's newest weights."""
        return _said(self._chain.weights.status(self._identity(netuid, identity_name)))

    # --- the rest -------------------------------------------------------------------------------------------------

    def login(self, identity_name: str) -> Response:
        """Show the identity's token once, and get a session cookie for it."""
        identity = self._door.login(identity_name)
        return _said({"netuid": identity.netuid, "identity_name": identity.name})

    def identities(self) -> Response:
        """The netuid of each identity."""
        return _said({"identities": {one.name: one.netuid for one in self._chain.pylon.identities}})

    def latest_block(self) -> Response:
        """The newest block."""
        self._door.block_level(request.environ)
        return self._told(self._chain.reads.latest_block(self._timeout()))

    def extrinsic(self, number: str, index: str) -> Response:
        """One extrinsic of a block, decoded."""
        block, place = whole(number), whole(index)
        self._door.block_level(request.environ)
        return self._told(self._chain.reads.extrinsic(block, place, self._timeout()))

    def status(self) -> Response:
        """How the chain is reached, and how old the newest block is."""
        self._door.open(request.environ)
        return _said(self._chain.reads.status())


def _said(body: dict[str, Any] | bytes, status: int = 200) -> Response:
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(text, status, content_type="application/json")
