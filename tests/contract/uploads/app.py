"""A small app with uploads, raw bodies and files, as the node joins them; used by tests in this process and by
the servers that integration tests start."""

from pathlib import Path

from flask import Flask, Response, jsonify, request

from grid_node.blobs.local import LocalBlobs
from grid_node.clock import Clock, SystemClock
from grid_node.database import Base, DirectStore, GroupCommitStore, Offload, make_engine
from grid_node.errors import GridError, MissingKey
from grid_node.http.bodies import body_chunks, read_body, stream_to_blob
from grid_node.http.files import blob_answer
from grid_node.http.uploads import uploads_blueprint
from grid_node.uploads.service import UploadService
from grid_node.uploads.target import StoredTarget

MAX_BYTES = 300 * 1024 * 1024
SMALL = 1024
STALL = 0.2


def owner_of(sent) -> str:
    """The tests' idea of identity: a header."""
    owner = sent.headers.get("X-Owner")
    if owner is None:
        raise MissingKey
    return owner


def create_app(
    folder: Path, offload: Offload, *, group: bool = False, clock: Clock | None = None, max_bytes: int = MAX_BYTES
) -> Flask:
    app = Flask(__name__)
    engine = make_engine(f"sqlite:///{folder / 'grid.db'}")
    Base.metadata.create_all(engine)
    store = GroupCommitStore(engine, offload) if group else DirectStore(engine)
    blobs = LocalBlobs(folder / "blobs", offload)
    uploads = UploadService(store, blobs, clock or SystemClock(), folder / "uploads", offload)
    target = StoredTarget("worker", max_bytes=max_bytes, open_max=64, ttl=3600.0)
    app.register_blueprint(uploads_blueprint("worker_uploads", "/worker/uploads", uploads, owner_of, target))
    app.extensions.update(store=store, blobs=blobs, uploads=uploads)

    @app.errorhandler(GridError)
    def refused(error: GridError) -> Response:
        answer = jsonify(error.body())
        answer.status_code = error.status
        if error.retry_after is not None:
            answer.headers["Retry-After"] = str(error.retry_after)
        return answer

    @app.get("/files/<sha256>")
    def file(sha256: str) -> Response:
        return blob_answer(
            request, blobs, sha256, filename=f"{sha256[:8]}.ply", content_type="application/octet-stream"
        )

    @app.post("/raw")
    def raw() -> Response:
        blob = stream_to_blob(request, blobs, max_bytes)
        return jsonify(sha256=blob.sha256, size=blob.size)

    @app.post("/small")
    def small() -> Response:
        return jsonify(size=len(read_body(request, SMALL)))

    @app.post("/impatient")
    def impatient() -> Response:
        return jsonify(size=sum(map(len, body_chunks(request, max_bytes, stall=STALL))))

    @app.get("/impatient/<sha256>")
    def impatient_file(sha256: str) -> Response:
        return blob_answer(request, blobs, sha256, filename="f", content_type="application/octet-stream", stall=STALL)

    @app.get("/ready")
    def ready() -> Response:
        return jsonify(ready=True)

    uploads.recover(target)
    return app


__all__ = ["SMALL", "create_app"]
