"""Answers of Pylon's API, for the OpenAPI document: the bytes themselves come from the chain's process.

Every member is there in every answer: a client that misses one breaks.
"""

from typing import Any

from marshmallow import Schema, fields


def _told(description: str, example: Any = None) -> dict[str, Any]:
    return {"description": description} | ({} if example is None else {"example": example})


class BlockRef(Schema):
    number = fields.Integer(required=True)
    hash = fields.String(required=True, metadata=_told("`0x` and 64 lower hex digits"))


class BlockAnswer(BlockRef):
    timestamp = fields.Integer(required=True, metadata=_told("whole seconds since 1970-01-01 UTC"))


class AxonAnswer(Schema):
    ip = fields.String(required=True, metadata=_told("`0.0.0.0`: serves nothing"))
    port = fields.Integer(required=True)
    protocol = fields.Integer(required=True, metadata=_told("0 TCP, 1 UDP, 4 HTTP"))


class StakesAnswer(Schema):
    alpha = fields.Float(required=True)
    tao = fields.Float(required=True)
    total = fields.Float(required=True)


class NeuronAnswer(Schema):
    """Stake and emission in whole tokens; rank to dividends are proportions."""

    uid = fields.Integer(required=True)
    coldkey = fields.String(required=True)
    hotkey = fields.String(required=True)
    active = fields.Boolean(required=True)
    axon_info = fields.Nested(AxonAnswer, required=True)
    stake = fields.Float(required=True)
    rank = fields.Float(required=True)
    emission = fields.Float(required=True)
    incentive = fields.Float(required=True)
    consensus = fields.Float(required=True)
    trust = fields.Float(required=True)
    validator_trust = fields.Float(required=True)
    dividends = fields.Float(required=True)
    last_update = fields.Integer(required=True, metadata=_told("block"))
    validator_permit = fields.Boolean(required=True)
    pruning_score = fields.Integer(required=True)
    stakes = fields.Nested(StakesAnswer, required=True)


class NeuronsAnswer(Schema):
    block = fields.Nested(BlockRef, required=True)
    neurons = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(NeuronAnswer),
        required=True,
        metadata=_told("by hotkey, in the order of the uids"),
    )


class ValidatorsAnswer(Schema):
    block = fields.Nested(BlockRef, required=True)
    validators = fields.List(fields.Nested(NeuronAnswer), required=True, metadata=_told("most stake first"))


class CertificateAnswer(Schema):
    algorithm = fields.Integer(required=True)
    public_key = fields.String(required=True, metadata=_told("64 hex digits"))


class CertificatePairAnswer(CertificateAnswer):
    private_key = fields.String(required=True, metadata=_told("told once and kept nowhere"))


CERTIFICATES: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"$ref": "#/components/schemas/CertificateAnswer"},
    "description": "by hotkey",
}


class CommitmentsAnswer(Schema):
    block = fields.Nested(BlockRef, required=True)
    commitments = fields.Dict(keys=fields.String(), values=fields.String(), required=True, metadata=_told("by hotkey"))


class CommitmentAnswer(Schema):
    block = fields.Nested(BlockRef, required=True)
    hotkey = fields.String(required=True)
    commitment = fields.String(required=True, metadata=_told("hex digits after `0x`", "0xdeadbeef"))
    commitment_block_number = fields.Integer(required=True, metadata=_told("the block that it was set in"))


class CallArgument(Schema):
    name = fields.String(required=True)
    type = fields.String(required=True)
    value = fields.Raw(required=True)


class CallAnswer(Schema):
    call_module = fields.String(required=True)
    call_function = fields.String(required=True)
    call_args = fields.List(fields.Nested(CallArgument), required=True)


class ExtrinsicAnswer(Schema):
    block_number = fields.Integer(required=True)
    extrinsic_index = fields.Integer(required=True)
    extrinsic_hash = fields.String(required=True)
    extrinsic_length = fields.Integer(required=True)
    address = fields.String(required=True, allow_none=True, metadata=_told("who signed it"))
    call = fields.Nested(CallAnswer, required=True)


class DetailAnswer(Schema):
    detail = fields.String(required=True)


class WeightsAnswer(DetailAnswer):
    count = fields.Integer(required=True, metadata=_told("entries of the request"))
    job_id = fields.String(required=True)
    dropped = fields.List(fields.String(), required=True, metadata=_told("hotkeys that the subnet does not have"))


class EpochAnswer(Schema):
    start = fields.Integer(required=True)
    end = fields.Integer(required=True)


class WeightsStatusAnswer(Schema):
    """The newest job of an identity. Times are in seconds since 1970-01-01 UTC."""

    job_id = fields.String(required=True)
    identity_name = fields.String(required=True)
    netuid = fields.Integer(required=True)
    status = fields.String(
        required=True,
        metadata={"enum": ["scheduled", "running", "completed", "superseded", "tempo_expired", "failed"]},
    )
    weights_submitted = fields.Boolean(required=True, metadata=_told("whether they have landed"))
    count = fields.Integer(required=True)
    dropped = fields.List(fields.String(), required=True)
    source = fields.String(required=True, metadata={"enum": ["client", "auto"]})
    attempts = fields.Integer(required=True)
    max_attempts = fields.Integer(required=True)
    created_at = fields.Float(required=True)
    updated_at = fields.Float(required=True)
    next_attempt_at = fields.Float(required=True, allow_none=True)
    epoch = fields.Nested(EpochAnswer, required=True, allow_none=True)
    block_number = fields.Integer(required=True, allow_none=True)
    extrinsic_hash = fields.String(required=True, allow_none=True)
    reveal_round = fields.Integer(required=True, allow_none=True)
    last_error = fields.String(required=True, allow_none=True)


class LoginAnswer(Schema):
    netuid = fields.Integer(required=True)
    identity_name = fields.String(required=True)


class IdentitiesAnswer(Schema):
    identities = fields.Dict(
        keys=fields.String(), values=fields.Integer(), required=True, metadata=_told("netuid by name", {"sn1": 1})
    )


class EndpointAnswer(Schema):
    uri = fields.String(required=True)
    ok = fields.Boolean(required=True)
    error = fields.String(required=True, allow_none=True)


class ChainStatusAnswer(Schema):
    backend = fields.String(required=True, metadata={"enum": ["local", "subtensor"]})
    worker = fields.String(required=True, metadata={"enum": ["up", "down"]})
    head = fields.Nested(BlockRef, required=True, allow_none=True)
    age_seconds = fields.Float(required=True, allow_none=True)
    endpoints = fields.List(fields.Nested(EndpointAnswer), required=True)
    queue = fields.Integer(required=True)
    cache_bytes = fields.Integer(required=True)


class Problem(Schema):
    message = fields.String(required=True)
    key = fields.String(required=True, metadata=_told("path of the field, dotted"))


class RefusalAnswer(Schema):
    """The body of every refusal."""

    status_code = fields.Integer(required=True)
    detail = fields.String(required=True)
    extra = fields.List(fields.Nested(Problem), metadata=_told("what is wrong in which field"))
