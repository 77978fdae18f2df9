"""Who a request speaks for: the holder of an API key, or a worker."""

from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any, cast

from flask import Flask, Request, Response, g

from grid_node.errors import GridError, NotAuthenticated
from grid_node.fields import load
from grid_node.generation.schemas import WorkerNameSchema
from grid_node.generation.work import WorkerIdentity
from grid_node.hosting.rights import ModelCaller
from grid_node.http.bodies import read_body
from grid_node.identity.epistula import SignedRequest, body_digest
from grid_node.identity.limits import Window, headers
from grid_node.identity.service import Caller
from grid_node.services import Services
from grid_node.web import key_of_environ

OFFER = WorkerNameSchema()

SIGNED_BODY_MAX = 8 * 1024 * 1024
"""Bytes of a signed request that is taken whole before it is believed: one piece of an upload, or JSON."""


class Doorkeeper:
    """Identifies requests. Workers of a private grid show an API key, all others sign each request."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # --- clients ------------------------------------------------------------------------------------------------

    def client(self, request: Request) -> Caller:
        """The holder of a key with scope `client`. Raises MissingKey, InvalidKey, Forbidden, TooManyBadKeys."""
        caller = self._services.keys.authenticate(key_of_environ(request.environ), address_of(request), "client")
        g.caller = caller
        return caller

    def describe_window(self, answer: Response) -> Response:
        """Tell the key what is left to it, on every answer that it gets."""
        caller = g.get("caller")
        if caller is not None:
            with suppress(GridError):
                answer.headers.update(headers(g.get("window") or self._window(caller)))
        return answer

    def _window(self, caller: Caller) -> Window:
        grid = self._services
        window: Window = grid.store.read(lambda tx: grid.limiter.window(tx, caller, grid.clock.now()))
        return window

    def model_caller(self, request: Request, *, writes: bool = False, token: str | None = None) -> ModelCaller:
        """Who asks for hosted models; whether that takes a key is set by `models_auth`. `token` opens one share, and
        may come by header too. Raises MissingKey, InvalidKey, Forbidden, TooManyBadKeys."""
        token = token or request.headers.get("X-Share-Token")
        key = key_of_environ(request.environ)
        return self._services.hosting.access.by_key(key, address_of(request), writes=writes, token=token)

    # --- workers ------------------------------------------------------------------------------------------------

    def worker(self, request: Request, body: bytes = b"") -> WorkerIdentity:
        """The worker that sent this request with this body. Raises what the check of a key or signature raises."""
        key = key_of_environ(request.environ)
        if key is not None:
            return self._key_worker(request, key)
        signed = self.signed(request)
        self.confirm(request, signed, body_digest(request.method, target_of(request), body))
        return self.hotkey_worker(signed)

    def uploader(self, request: Request) -> str:
        """The owner of an upload. A signature covers the body, so a signed piece is taken whole first."""
        if key_of_environ(request.environ) is not None:
            return self.worker(request).identity
        self.signed(request)
        body = read_body(request, SIGNED_BODY_MAX)
        request.environ["wsgi.input"] = BytesIO(body)
        return self.worker(request, body).identity

    def claimed_worker(self, request: Request) -> tuple[WorkerIdentity, SignedRequest | None]:
        """Before the body is read: who says to have sent it, and the signature that `confirm` has yet to check."""
        key = key_of_environ(request.environ)
        if key is not None:
            return self._key_worker(request, key), None
        signed = self.signed(request)
        return self.hotkey_worker(signed), signed

    def signed(self, request: Request) -> SignedRequest:
        if "Epistula-Signed-By" not in request.headers and "Epistula-Version" not in request.headers:
            raise NotAuthenticated()
        return self._services.epistula.open(cast(Mapping[str, str], request.headers))

    def confirm(self, request: Request, signed: SignedRequest, digest: str) -> None:
        """The body with this digest is what the hotkey signed, for the first time."""
        grid = self._services
        grid.epistula.check(signed, digest)
        grid.store.write(lambda tx: grid.epistula.remember(tx, signed))

    def hotkey_worker(self, signed: SignedRequest) -> WorkerIdentity:
        return self._services.authentication.hotkey_worker(signed.public_key, {})

    def _key_worker(self, request: Request, key: str) -> WorkerIdentity:
        name = request.headers.get("X-Worker-Name")
        offer: dict[str, Any] = load(OFFER, {} if name is None else {"name": name})
        return self._services.authentication.key_worker(key, name, address_of(request), offer)


def address_of(request: Request) -> str:
    return request.remote_addr or ""


def target_of(request: Request) -> str:
    """Path and query as they were sent."""
    environ = request.environ
    return str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or request.full_path.rstrip("?"))


def register_auth(app: Flask, services: Services) -> Doorkeeper:
    doorkeeper = Doorkeeper(services)
    app.after_request(doorkeeper.describe_window)
    return doorkeeper
