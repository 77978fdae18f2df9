"""The HTTP face: one module a feature, over the same services as the events."""

from typing import Any

from flask import Flask
from flask_smorest import Api

from grid_node.http.auth import register_auth
from grid_node.http.bodies import leave_no_rest
from grid_node.http.chain import register_chain
from grid_node.http.chain_fast import ChainFirst
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
from grid_node.http.pc import PcRoutes
from grid_node.http.predictions import PredictionRoutes
from grid_node.http.runner_door import RunnerDoor
from grid_node.http.runner_envelope import register_envelope
from grid_node.http.runner_files import RunnerFileRoutes
from grid_node.http.runner_webhook import WebhookRoutes
from grid_node.http.secure import SecureRoutes
from grid_node.http.socket_route import register_socket
from grid_node.http.tasks import TaskRoutes
from grid_node.http.v1 import V1Routes
from grid_node.http.v1_deliveries import V1DeliveryRoutes
from grid_node.http.v1_files import V1FileRoutes
from grid_node.http.v1_models import V1ModelRoutes
from grid_node.http.v2 import V2Routes
from grid_node.http.v2_door import InferDoor, InferFirst
from grid_node.http.worker_uploads import WorkerUploads
from grid_node.http.workers import WorkerRoutes
from grid_node.services import Services


def register_routes(app: Flask, services: Services, server: Any) -> HttpFace:
    """Every route, error handler and raw WebSocket."""
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.after_request(leave_no_rest)
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
    _register_runners(app, api, services, connections)
    chain = register_chain(app, api, services)
    app.wsgi_app = InferFirst(app.wsgi_app, door, idle)  # type: ignore[method-assign]
    app.wsgi_app = ChainFirst(app.wsgi_app, services, chain, idle)  # type: ignore[method-assign]
    app.register_blueprint(uploads.blueprint(doorkeeper))
    app.register_blueprint(models.blueprint())
    app.register_blueprint(SecureRoutes(services, doorkeeper).blueprint())
    app.register_blueprint(operations_blueprint(services))
    register_socket(app, GenerateSockets(services, connections))
    return HttpFace(services, connections, idle, [uploads, models], polls)


def _register_runners(app: Flask, api: Api, services: Services, connections: Connections) -> None:
    """Both sides of the models that run elsewhere: their owners and workers, and their clients."""
    register_envelope(app)
    door = RunnerDoor(services.running.access)
    api.register_blueprint(PcRoutes(services, door).blueprint())
    api.register_blueprint(RunnerFileRoutes(services, door).blueprint())
    api.register_blueprint(V1Routes(services, door, connections).blueprint())
    api.register_blueprint(V1ModelRoutes(services, door).blueprint())
    api.register_blueprint(V1FileRoutes(services, door).blueprint())
    api.register_blueprint(V1DeliveryRoutes(services, door).blueprint())
    app.register_blueprint(WebhookRoutes(services, door).blueprint())
