"""Routes of the linear layer on shares (`grid_client.secure_linear`). Tensors travel as safetensors files of I64."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO

from flask import Blueprint, Response, jsonify, request

from grid_node.errors import InferenceTooLarge
from grid_node.http.auth import Doorkeeper
from grid_node.http.bodies import body_chunks
from grid_node.http.payloads import json_payload
from grid_node.services import Services

URL = "/secure_linear"
SESSION = "Secure-Session"
PIECE = 256 * 1024


class SecureRoutes:
    """`/secure_linear/triples` of a crypto provider, `/mask` and `/finish` of a holder."""

    def __init__(self, services: Services, doorkeeper: Doorkeeper) -> None:
        self._services = services
        self._secure = services.hosting.secure
        self._doorkeeper = doorkeeper

    def blueprint(self) -> Blueprint:
        made = Blueprint("secure_linear", __name__, url_prefix=URL)
        made.add_url_rule("/triples", "make", self.make, methods=["POST"], strict_slashes=False)
        made.add_url_rule("/triples/<triple>/<index>", "part", self.part, methods=["GET"], strict_slashes=False)
        made.add_url_rule("/mask", "mask", self.mask, methods=["POST"], strict_slashes=False)
        made.add_url_rule("/finish/<session>", "finish", self.finish, methods=["POST"], strict_slashes=False)
        return made

    def make(self) -> Response:
        """A fresh triple; its parts are for other keys than the one that asks."""
        caller = self._doorkeeper.model_caller(request, writes=True)
        return jsonify(self._secure.triples.make(caller, json_payload(request)))

    def part(self, triple: str, index: str) -> Response:
        """One part, once."""
        return self._sent(self._secure.triples.fetch(self._doorkeeper.model_caller(request), triple, index))

    def mask(self) -> Response:
        """x shared out for this holder in, d and e of this holder out."""
        caller = self._doorkeeper.model_caller(request)
        with self._body() as body:
            session, masked = self._secure.linear.mask(caller, body)
        answer = self._sent(masked)
        answer.headers[SESSION] = session
        return answer

    def finish(self, session: str) -> Response:
        """d and e of all holders in, this holder's share of the outputs out."""
        caller = self._doorkeeper.model_caller(request)
        with self._body() as body:
            return self._sent(self._secure.linear.finish(caller, session, body))

    def _body(self) -> BinaryIO:
        """The body in a file without a name. Raises InferenceTooLarge, BodyIncomplete."""
        offload, limit = self._services.hosting.offload, self._services.settings.infer_max_bytes
        with ExitStack() as stack:
            file = stack.enter_context(self._secure.ring.file())
            for piece in body_chunks(request, limit, too_large=InferenceTooLarge):
                offload(file.write, piece)
            stack.pop_all()
        return file

    def _sent(self, file: BinaryIO) -> Response:
        offload, size = self._services.hosting.offload, os.fstat(file.fileno()).st_size

        def pieces() -> Iterator[bytes]:
            with file:
                for start in range(0, size, PIECE):
                    yield offload(os.pread, file.fileno(), PIECE, start)

        answer = Response(pieces(), mimetype="application/octet-stream")
        answer.headers["Content-Length"] = str(size)
        answer.headers["Cache-Control"] = "no-store"
        return answer
