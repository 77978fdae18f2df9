"""gunicorn's door: `gunicorn -k eventlet -w 1 wsgi:app`. Monkey patching comes first."""

import os

MODE = os.environ.get("GRID_ASYNC_MODE", "eventlet")

if MODE == "eventlet":
    import eventlet

    eventlet.monkey_patch()
    os.environ.setdefault("PSYCOPG_WAIT_FUNC", "wait_selector")

import signal
import sys
import threading
from types import FrameType
from typing import Any

from app import create_app
from grid_node.logs import configure_logging
from grid_node.settings import BadSetting, Settings

try:
    settings = Settings.load(async_mode=MODE)
    configure_logging(settings.log_level)
    app = create_app(settings)
except BadSetting as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(2)

node = app.extensions["grid_node"]
node.start()
_before: Any = signal.getsignal(signal.SIGTERM)


def _drain(signum: int, frame: FrameType | None) -> None:
    """SIGTERM: let go of every connection in order, then let the server do its own part."""
    threading.Thread(target=_stop, args=(signum, frame), daemon=True).start()


def _stop(signum: int, frame: FrameType | None) -> None:
    node.stop()
    if callable(_before):
        _before(signum, frame)
    else:
        sys.exit(0)


signal.signal(signal.SIGTERM, _drain)
