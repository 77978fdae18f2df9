"""A webhook whose receiver fails twice, and whose node is killed in between (kill -9): it arrives, under one id."""

import json
import time
from contextlib import closing
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from standardwebhooks import Webhook

from grid_node.database import make_engine
from grid_node.runners.tables import RunnerDelivery
from tests.hooks import Receiver
from tests.nodes import LiveNode, running_node, until

SIGNATURE = {"inputs": [{"name": "prompt", "type": "str", "validation": {}}], "outputs": "str"}


class Client:
    """Somebody who runs models by the key."""

    def __init__(self, node: LiveNode) -> None:
        self._headers = {"Authorization": f"Bearer {node.add_key('client', ('client',))}"}
        self._runner = {"X-API-KEY": node.add_key("runner", ("runner",))}
        self._url = node.url

    def canceled(self, webhook: str) -> str:
        """Id of a prediction that ended before any runner had it."""
        registered = {**SIGNATURE, "visibility": "public"}
        answer = httpx.post(f"{self._url}/pc/client-api/predict_signature", json=registered, headers=self._runner)
        model = self.get(f"/v1/models/{self.owner_of(answer.json()['id'])}/{answer.json()['id']}")
        asked = {"version": model["latest_version"]["id"], "input": {"prompt": "x"}, "webhook": webhook}
        made = httpx.post(f"{self._url}/v1/predictions", json=asked, headers=self._headers)
        assert made.status_code == 201, made.text
        httpx.post(made.json()["urls"]["cancel"], headers=self._headers)
        return str(made.json()["id"])

    def owner_of(self, model: str) -> str:
        found = self.get("/v1/models")["results"]
        return next(one["owner"] for one in found if model in one["url"] or model == one["name"])

    def get(self, path: str) -> Any:
        answer = httpx.get(f"{self._url}{path}", headers=self._headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tries(self, id: str) -> list[int | None]:
        (entry,) = self.get(f"/v1/predictions/{id}/deliveries")["results"]
        return [one["status"] for one in entry["tries"]]


def pass_time(node: LiveNode) -> None:
    """What waits for its next try has waited long enough."""
    engine = make_engine(f"sqlite:///{node.data / 'grid.db'}")
    with engine.begin() as connection:
        connection.execute(update(RunnerDelivery.__table__).values(due_at=time.time() - 5))
    engine.dispose()


@pytest.mark.timeout(180)
def test_a_webhook_survives_its_node(tmp_path: Any) -> None:
    with closing(Receiver(500, 503)) as target, running_node(tmp_path, webhook_allow_private=True) as node:
        client = Client(node)
        id = client.canceled(f"{target.url}?token=of-the-client")
        until(lambda: client.tries(id) == [500, 503], 60)
        node.kill()
        pass_time(node)
        assert len(target.got) == 2

        node.start()
        until(lambda: client.tries(id) == [500, 503, 200], 60)
        assert len({headers["webhook-id"] for headers, _body in target.got}) == 1
        headers, body = target.got[2]
        key = client.get("/v1/webhooks/default/secret")["key"]
        assert Webhook(key).verify(body, headers)["status"] == "canceled"
        assert json.loads(body)["id"] == id
        assert "of-the-client" not in node.log_text()
