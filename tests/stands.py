"""A registered model with its owner, and the agent program beside its worker, on a real node."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.nodes import ROOT, LiveNode, until

PATIENCE = 60.0
ENDED = ("succeeded", "failed", "canceled")


class Stand:
    """`signature` is registered as it is; the owner's key may run his models, too."""

    def __init__(self, node: LiveNode, folder: Path, signature: dict[str, Any]) -> None:
        self.node = node
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.key = node.add_key("owner", ("runner", "client"))
        self.http = httpx.Client(base_url=node.url, headers={"X-API-KEY": self.key}, timeout=30.0, trust_env=False)
        made = self._post("/pc/client-api/predict_signature", signature)
        self.model_id: str = made["id"]
        self.credential = folder / "tunnel_credential.json"
        self.credential.write_text(json.dumps(made["credential"]))
        self.upload_url = f"http://runner:{self.key}@127.0.0.1:{node.port}/pc/client-api/upload"
        self.model = f"{self.registered()['owner']}/{self.registered()['model_name']}"

    def close(self) -> None:
        """The model goes, whatever runs on it."""
        self.http.delete(f"/pc/client-api/predict_signature/{self.model_id}", params={"force": "true"})
        self.http.close()

    def _post(self, path: str, body: Any) -> Any:
        return self.http.post(path, json=body).raise_for_status().json()

    def _get(self, path: str, **params: Any) -> Any:
        return self.http.get(path, params=params).raise_for_status().json()

    # --- the owner --------------------------------------------------------------------------------------------------

    def registered(self) -> dict[str, Any]:
        found = self._get("/pc/client-api/models")["models"]
        return next(one for one in found if one["model_id"] == self.model_id)

    def until_runner_is(self, *statuses: str) -> None:
        until(lambda: self.registered()["runner"]["status"] in statuses, PATIENCE)

    # --- a client ---------------------------------------------------------------------------------------------------

    def begin(self, **given: Any) -> str:
        made: str = self._post(f"/v1/models/{self.model}/predictions", {"input": given})["id"]
        return made

    def look(self, prediction_id: str) -> dict[str, Any]:
        return dict(self._get(f"/v1/predictions/{prediction_id}"))

    def newest(self) -> dict[str, Any]:
        """The newest prediction of the key: `generate` makes some for the owner, too."""
        return dict(self._get("/v1/predictions")["results"][0])

    def cancel(self, prediction_id: str) -> dict[str, Any]:
        return dict(self._post(f"/v1/predictions/{prediction_id}/cancel", {}))

    def until_state_is(self, prediction_id: str, *states: str, seconds: float = PATIENCE) -> dict[str, Any]:
        until(lambda: self.look(prediction_id)["status"] in states, seconds)
        return self.look(prediction_id)

    def run(self, **given: Any) -> dict[str, Any]:
        return self.until_state_is(self.begin(**given), *ENDED)

    def bytes_of(self, prediction: dict[str, Any]) -> list[bytes]:
        return [fetched(url) for url in prediction["output"]]


def fetched(url: str) -> bytes:
    """An output file, which nobody needs a key for."""
    return httpx.get(url, trust_env=False).raise_for_status().content


@contextlib.contextmanager
def agent(stand: Stand, worker_url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`grid-runner` in the folder with the credential."""
    command = [sys.executable, "-m", "grid_client.cli.main", "runner", "--url", worker_url, "--node", stand.node.url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python")}
    with (stand.folder / "agent.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=stand.folder, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
