"""gunicorn's own lines in the node's form. A module of its own: only gunicorn.conf.py needs it."""

import logging
import re
from typing import Any

from gunicorn.glogging import Logger

from grid_node.logs import json_formatter

_TOKEN = re.compile(r"([?&]token=)[^&\s'\"]*")


class WithoutTokens(logging.Filter):
    """gunicorn names the whole address of a request that fails; a token in it is not told."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "token=" in text:
            record.msg, record.args = _TOKEN.sub(r"\1...", text), ()
        return True


class ServerLog(Logger):
    """What gunicorn says of its processes, one JSON object a line."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(json_formatter())
            handler.addFilter(WithoutTokens())
