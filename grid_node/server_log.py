"""gunicorn's own lines in the node's form. A module of its own: only gunicorn.conf.py needs it."""

from typing import Any

from gunicorn.glogging import Logger

from grid_node.logs import json_formatter


class ServerLog(Logger):
    """What gunicorn says of its processes, one JSON object a line."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(json_formatter())
