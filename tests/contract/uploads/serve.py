"""Starts the tests' app as a program: `python -m tests.contract.uploads.serve {eventlet|threads} FOLDER PORT`."""

import os
import sys
from pathlib import Path


def main(kind: str, folder: str, port: str) -> None:
    if kind == "threads":
        from werkzeug.serving import WSGIRequestHandler, run_simple

        from tests.contract.uploads.app import create_app
        from tests.stores import call

        WSGIRequestHandler.protocol_version = "HTTP/1.1"
        run_simple("127.0.0.1", int(port), create_app(Path(folder), call), threaded=True)
        return
    factory = f"tests.contract.uploads.serve:eventlet_app('{folder}')"
    options = ["-k", "eventlet", "-w", "1", "-b", f"127.0.0.1:{port}", "--log-level", "warning"]
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-m", "gunicorn", *options, factory])


def eventlet_app(folder: str):
    """In gunicorn's worker, which has patched the standard library."""
    from eventlet import tpool

    from tests.contract.uploads.app import create_app

    return create_app(Path(folder), tpool.execute, group=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
