"""The HTTP face: one module a feature, over the same services as the events."""

from typing import Any

from flask import Flask

from grid_node.http.operations import observe_requests, operations_blueprint
from grid_node.services import Services


def register_routes(app: Flask, services: Services, server: Any) -> None:
    """Every route, error handler and raw WebSocket."""
    observe_requests(app, services)
    app.register_blueprint(operations_blueprint(services))
