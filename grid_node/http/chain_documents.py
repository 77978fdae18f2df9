"""What the OpenAPI document says of Pylon's API: every status that a route uses, and the schema behind it."""

from http import HTTPStatus
from typing import Any

from flask_smorest import Api
from marshmallow import Schema

from grid_node.chain.answers import RefusalAnswer

ANY = (500,)
WAITING = (400, 502, 503, 504)
"""A header that names no time; the chain is away, is busy, or is too slow."""
OPEN = (401, 403, 404, 429)
IDENTITY = (308, 401, 403, 404, 429)
BLOCK_LEVEL = (401, 403, 404, 429)
BODY = (400, 413)

OPEN_ACCESS: list[dict[str, list[str]]] = [{"chain_token": []}, {}]
IDENTITY_ACCESS: list[dict[str, list[str]]] = [{"chain_token": []}, {"chain_session": []}]
NO_ACCESS: list[dict[str, list[str]]] = [{}]
_TIMEOUT = {
    "in": "header",
    "name": "X-Pylon-Timeout",
    "description": "seconds",
    "schema": {"type": "number", "default": 60, "maximum": 300},
}


def describe_access(api: Api) -> None:
    api.spec.components.security_scheme("chain_token", {"type": "http", "scheme": "bearer"})
    session = {"type": "apiKey", "in": "cookie", "name": "pylon_session"}
    api.spec.components.security_scheme("chain_session", session)


def responses(status: int, schema: type[Schema] | dict[str, Any], refusals: tuple[int, ...]) -> dict[str, Any]:
    told = {str(status): _response("done", schema)}
    return told | {str(one): _response(HTTPStatus(one).phrase, RefusalAnswer) for one in sorted({*refusals, *ANY})}


def parameters(waits: bool) -> list[dict[str, Any]]:
    return [_TIMEOUT] if waits else []


def _response(description: str, schema: type[Schema] | dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
