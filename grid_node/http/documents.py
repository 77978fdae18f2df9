"""What the OpenAPI document says of the routes, from the schemas that check their messages."""

from pathlib import Path
from typing import Any

from flask import Flask, Response, send_from_directory
from flask_smorest import Api
from marshmallow import Schema, fields
from swagger_ui_bundle import swagger_ui_path

from grid_node.hosting.schemas import AskedId, Encoding, Flag, NewId, Object

ASSETS = "/schema/swagger-ui/"


class ErrorSchema(Schema):
    """The body of every refusal; some carry more members (`fields`, `retry_after`, `limit`, ...)."""

    success = fields.Boolean(metadata={"example": False})
    error = fields.String(metadata={"description": "in words"})
    code = fields.String(metadata={"description": "stable code"})
    status = fields.Integer()


ERRORS = {"default": {"description": "refused", "content": {"application/json": {"schema": ErrorSchema}}}}


def body_of(schema: type[Schema]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def query_of(schema: type[Schema], without: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"parameters": [{"in": "query", "schema": schema(exclude=without)}]}


def header(name: str) -> dict[str, Any]:
    return {"in": "header", "name": name, "schema": {"type": "string"}}


def answers(status: int) -> dict[str, Any]:
    return {str(status): {"description": "done"}}


class _Api(Api):
    """The node has one error hook and one error body of its own."""

    ERROR_SCHEMA = ErrorSchema

    def _register_error_handlers(self) -> None:
        return


def make_api(app: Flask) -> Api:
    """The OpenAPI document at `/schema/openapi.json`; its page at `/schema` and `/schema/swagger`, served from here
    alone."""
    app.config.update(
        API_TITLE="Grid Node",
        API_VERSION="1",
        OPENAPI_VERSION="3.0.3",
        OPENAPI_URL_PREFIX="/schema",
        OPENAPI_JSON_PATH="openapi.json",
        OPENAPI_SWAGGER_UI_PATH="swagger",
        OPENAPI_SWAGGER_UI_URL=ASSETS,
    )
    api = _Api(app)
    api.register_field(Flag, "boolean", None)
    for text in (NewId, AskedId, Encoding):
        api.register_field(text, "string", None)
    api.register_field(Object, "object", None)
    api.spec.components.security_scheme("key", {"type": "http", "scheme": "bearer"})
    api.spec.components.security_scheme("worker", {"type": "apiKey", "in": "header", "name": "X-Worker-Name"})
    signed = {"type": "apiKey", "in": "header", "name": "Epistula-Request-Signature"}
    api.spec.components.security_scheme("miner", signed)
    app.add_url_rule(f"{ASSETS}<path:name>", "swagger_assets", _asset)
    app.add_url_rule("/schema", "schema", app.view_functions["api-docs.openapi_swagger_ui"])
    return api


def _asset(name: str) -> Response:
    return send_from_directory(Path(str(swagger_ui_path)), name, max_age=86400)
