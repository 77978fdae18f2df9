"""The HTTP face: one module a feature, over the same services as the events."""

from typing import Any

from flask import Flask

from grid_node.http.auth import register_auth
from grid_node.http.connections import Connections
from grid_node.http.datasets import DatasetRoutes
from grid_node.http.documents import make_api
from grid_node.http.errors import register_errors
from grid_node.http.face import HttpFace
from grid_node.http.game_polls import GamePolls
from grid_node.http.games import GameRoutes
from grid_node.http.generate_socket import GenerateSockets
from grid_node.http.idle import IdleConnections
from grid_node.http.miner_door import MinerDoor
from grid_node.http.model_uploads import ModelUploads
from grid_node.http.models import ModelRoutes
from grid_node.http.operations import observe_requests, operations_blueprint
from grid_node.http.predictions import PredictionRoutes
from grid_node.http.secure import SecureRoutes
from grid_node.http.socket_route import register_socket
from grid_node.http.tasks import TaskRoutes
from grid_node.http.v2 import V2Routes
from grid_node.http.v2_door import InferDoor, InferFirst
from grid_node.http.worker_uploads import WorkerUploads
from grid_node.http.workers import WorkerRoutes
from grid_node.services import Services


def register_routes(app: Flask, services: Services, server: Any) -> HttpFace:
    """Every route, error handler and raw WebSocket."""
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    observe_requests(app, services)
    register_errors(app, services)
    doorkeeper = register_auth(app, services)
    connections, idle = Connections(), IdleConnections()
    idle.watch(app)
    uploads, models = WorkerUploads(services), ModelUploads(services)
    api = make_api(app)
    api.register_blueprint(TaskRoutes(services, doorkeeper, connections).blueprint())
    api.register_blueprint(WorkerRoutes(services, doorkeeper).blueprint())
    api.register_blueprint(DatasetRoutes(services).blueprint())
    miners = MinerDoor(services)
    polls = GamePolls(services.predicting.log, services.settings.websocket_max_connections)
    api.register_blueprint(PredictionRoutes(services, miners).blueprint())
    api.register_blueprint(GameRoutes(services, miners, polls).blueprint())
    door = InferDoor(services)
    api.register_blueprint(ModelRoutes(services, doorkeeper, door.in_hand).blueprint())
    api.register_blueprint(V2Routes(services, door).blueprint())
    app.wsgi_app = InferFirst(app.wsgi_app, door, idle)  # type: ignore[method-assign]
    app.register_blueprint(uploads.blueprint(doorkeeper))
    app.register_blueprint(models.blueprint())
    app.register_blueprint(SecureRoutes(services, doorkeeper).blueprint())
    app.register_blueprint(operations_blueprint(services))
    register_socket(app, GenerateSockets(services, connections))
    return HttpFace(services, connections, idle, [uploads, models], polls)
