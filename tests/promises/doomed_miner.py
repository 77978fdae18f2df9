"""A miner that kills itself (SIGKILL) at one point of a prediction's way; run as a program.

Arguments: the point, and a JSON object: url, seed, node_hotkey, outbox, prediction, websocket_enabled.
"""

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from bittensor_wallet import Keypair
from grid_client.outbox import Outbox
from grid_client.prediction_http import PredictionHttp
from grid_client.prediction_socket import PredictionSocket
from grid_client.predictions import PredictionClient

POINTS = ["after submit", "before send", "after send", "before storing the receipt", "after storing the receipt"]
LONG = 60.0


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: type, name: str) -> None:
    setattr(owner, name, die)


def after(owner: type, name: str) -> None:
    method: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(method)
    def last(*arguments: Any, **members: Any) -> Any:
        method(*arguments, **members)
        die()

    setattr(owner, name, last)


def doom(point: str) -> None:
    if point == "before send":
        after(Outbox, "mark_sent")
    elif point == "after send":
        after(PredictionSocket, "submit")
        after(PredictionHttp, "submit")
    elif point == "before storing the receipt":
        before(Outbox, "finish")
    elif point == "after storing the receipt":
        after(Outbox, "finish")


def main(point: str, given: dict[str, Any]) -> None:
    doom(point)
    client = PredictionClient(
        given["url"],
        Keypair.create_from_seed(given["seed"]),
        given["node_hotkey"],
        given["outbox"],
        websocket_enabled=given["websocket_enabled"],
    )
    prediction_id = client.submit(given["prediction"])
    if point == "after submit":
        die()
    client.start()
    client.wait(prediction_id, LONG)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
