"""gunicorn's settings for `gunicorn wsgi:app`; the start command and a plain gunicorn read the same ones."""

import os

_threading = os.environ.get("GRID_ASYNC_MODE") == "threading"

bind = f"{os.environ.get('GRID_HOST', '127.0.0.1')}:{os.environ.get('GRID_PUBLIC_API_SERVER_PORT', '8888')}"
# One process always: gunicorn does not keep a client on one worker. More processes are more gunicorns behind nginx.
workers = 1
worker_class = "gthread" if _threading else "eventlet"
# Every socket, SSE stream and waiting pull holds a greenlet.
worker_connections = int(os.environ.get("GRID_SOCKETS_MAX", "10000")) + 1000
threads = 512
graceful_timeout = int(float(os.environ.get("GRID_SHUTDOWN_GRACE", "10"))) + 5
timeout = 120
keepalive = 75
accesslog = None
