"""Requests of Pylon's API. The schemas check them, and they are the OpenAPI document.

The words of what is refused are Pylon's, which has them from pydantic.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields

from grid_node.chain.refusals import EXTRA_MAX, invalid, one_invalid
from grid_node.errors import ChainMalformed
from grid_node.wire import strict_json

COMMITMENT_MAX = 128
"""Bytes of a commitment."""
NUMBER_MAX = 64
"""Characters of a number that is sent as text."""

NO_OBJECT = "Input should be an object"
NO_NUMBER = "Input should be a valid number"
_NO_NUMBER_TEXT = "Input should be a valid number, unable to parse string as a number"
_NOT_FINITE = "Input should be a finite number"
_NEGATIVE = "Input should be greater than or equal to 0"
_NO_WEIGHTS = "Value error, No weights provided"
_NO_HEX = "Value error, passed commitment data is not a valid hex string."
_NO_BYTE = "Data should have at least 1 byte"
_TOO_MANY_BYTES = f"Data should have at most {COMMITMENT_MAX} bytes"
_NO_ALGORITHM = "Value error, Currently, only algorithm equals 1 is supported which is EdDSA using Ed25519 curve"
_MISSING = {"required": "Field required"}
_HEX = re.compile(r"(?:0x)?((?:[0-9a-fA-F]{2})*)")


def parsed(body: bytes) -> Any:
    """The body as JSON. NaN, infinities and what overflows to them are numbers here: the schema says which field has
    one. Raises ChainMalformed."""
    try:
        return strict_json.loads(body)
    except strict_json.InvalidJSON as error:
        reason = str(error)
    try:
        text = str(body, "utf-8")
        if not strict_json.deeper_than(text, strict_json.MAX_DEPTH):
            value = _lenient.decode(text)
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no text
            return value
    except (ValueError, RecursionError):
        pass
    raise ChainMalformed(f"JSON is malformed: {reason}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


_lenient = json.JSONDecoder(object_pairs_hook=_unique)


def load(schema: Schema, payload: Any) -> dict[str, Any]:
    """The checked message. Raises ChainInvalid."""
    if not isinstance(payload, Mapping):
        raise one_invalid("", NO_OBJECT)
    try:
        return dict(schema.load(payload))
    except ValidationError as error:
        raise invalid(error.messages) from None


class WeightMap(fields.Dict):
    """Hotkey to a finite number of at least 0, which may be text."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, float]:
        if not isinstance(value, dict):
            raise ValidationError("Input should be a valid dictionary")
        if not value:
            raise ValidationError(_NO_WEIGHTS)
        weights: dict[str, float] = {}
        problems: dict[str, list[str]] = {}
        for hotkey, given in value.items():
            try:
                weights[hotkey] = _weight(given)
            except ValidationError as error:
                problems[hotkey] = [str(message) for message in error.messages]
                if len(problems) == EXTRA_MAX:
                    break
        if problems:
            raise ValidationError(problems)
        return weights


def _weight(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValidationError(NO_NUMBER)
    if isinstance(given, str) and (len(given) > NUMBER_MAX or not given.isascii()):
        raise ValidationError(_NO_NUMBER_TEXT)
    try:
        weight = float(given)
    except OverflowError:
        raise ValidationError(_NOT_FINITE) from None
    except ValueError:
        raise ValidationError(_NO_NUMBER_TEXT) from None
    if not math.isfinite(weight):
        raise ValidationError(_NOT_FINITE)
    if weight < 0:
        raise ValidationError(_NEGATIVE)
    return weight


class HexBytes(fields.String):
    """Bytes as hex digits, with or without `0x`; loaded as bytes."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        match = _HEX.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValidationError(_NO_HEX)
        content = bytes.fromhex(match[1])
        if not content:
            raise ValidationError(_NO_BYTE)
        if len(content) > COMMITMENT_MAX:
            raise ValidationError(_TOO_MANY_BYTES)
        return content


class Algorithm(fields.Integer):
    """1, and nothing else."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if type(value) is not int or value != 1:
            raise ValidationError(_NO_ALGORITHM)
        return value


class Text(fields.String):
    """A JSON string."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError("Input should be a valid string")
        return value


class Request(Schema):
    class Meta:
        unknown = EXCLUDE


def _null(message: str) -> dict[str, Any]:
    return {**_MISSING, "null": message}


class WeightsRequest(Request):
    """Weights of an identity's subnet; the newest request of an identity wins."""

    weights = WeightMap(
        keys=fields.String(),
        values=fields.Float(),
        required=True,
        error_messages=_null("Input should be a valid dictionary"),
        metadata={"example": {"5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY": 0.5}},
    )


class CommitmentRequest(Request):
    commitment = HexBytes(
        required=True,
        error_messages=_null(_NO_HEX),
        metadata={"description": "1 to 128 bytes as hex digits, with or without `0x`", "example": "0xdeadbeef"},
    )


class CertificateRequest(Request):
    algorithm = Algorithm(
        load_default=1, error_messages=_null(_NO_ALGORITHM), metadata={"description": "1: EdDSA with Ed25519"}
    )


class LoginRequest(Request):
    token = Text(required=True, error_messages=_null("Input should be a valid string"))
    identity_name = fields.Raw(metadata={"description": "as in the path, which decides", "type": "string"})
