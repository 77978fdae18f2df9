"""gunicorn's settings for `gunicorn wsgi:app`; the start command and a plain gunicorn read the same ones."""

import os
import sys
import warnings

from grid_node.chain.pylon import PylonSettings
from grid_node.server_log import ServerLog
from grid_node.settings import BadSetting, Settings

# Known, and said once in docs/architecture.md instead of at every start.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

try:
    _settings = Settings.load(async_mode=os.environ.get("GRID_ASYNC_MODE", "eventlet"))
    PylonSettings.load(settings=_settings)  # here it ends gunicorn; in its worker it would be tried for ever
except BadSetting as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(2)

bind = f"{_settings.host}:{_settings.public_api_server_port}"
# One process always: gunicorn does not keep a client on one worker. More processes are more gunicorns behind nginx.
workers = 1
worker_class = "eventlet" if _settings.async_mode == "eventlet" else "gthread"
# Every socket, SSE stream and waiting pull holds a greenlet.
worker_connections = _settings.sockets_max + 1000
threads = 512
# Upload-Metadata holds everything that a model declares; the other headers of a request are few.
limit_request_field_size = 64 * 1024
limit_request_fields = 50
graceful_timeout = int(_settings.shutdown_grace) + 5
timeout = 120
keepalive = 75
accesslog = None
loglevel = _settings.log_level
logger_class = ServerLog
# Its control socket lies in the home folder, where several nodes would meet.
control_socket_disable = True
