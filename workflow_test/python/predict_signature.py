"""Register a model at a running node, step by step, over plain HTTP.

    GRID_API_KEY=... python predict_signature.py --url http://127.0.0.1:8888 --name painter

The key needs the scope `runner`. What a tunnel's agent runs with is written to two files in `--folder`:
tunnel_credential.json and tunnel_config.json. Needs httpx, which `pip install ./clients/python` brings.
"""

import argparse
import json
import mimetypes
import os
import sys
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

API = "/pc/client-api"
SIGNATURES = f"{API}/predict_signature"
SIGNATURE: dict[str, Any] = {
    "inputs": [
        {"name": "prompt", "type": "str", "validation": {"description": "this is a prompt"}},
        {"name": "seed", "type": "int", "validation": {"description": "seed"}},
        {
            "name": "steps",
            "type": "int",
            "validation": {"default": "50", "description": "steps", "ge": "0", "le": "1000"},
        },
        {
            "name": "guidance_scale",
            "type": "float",
            "validation": {"default": "5.0", "description": "guidance_scale", "ge": "0", "le": "20"},
        },
    ],
    "outputs": "list[Path]",
}
CREDENTIAL_FILE, CONFIG_FILE = "tunnel_credential.json", "tunnel_config.json"


# --- the model


def create(http: httpx.Client, signature: dict[str, Any]) -> dict[str, Any]:
    """`{"id", "credential", "config"}`."""
    return answer(http.post(SIGNATURES, json=signature))


def read(http: httpx.Client, model_id: str) -> dict[str, Any]:
    """The signature with what the node knows of the model; no secret is in it."""
    return answer(http.get(f"{SIGNATURES}/{model_id}"))


def replace(http: httpx.Client, model_id: str, signature: dict[str, Any]) -> dict[str, Any]:
    """A whole new signature; id and tunnel stay."""
    return answer(http.put(f"{SIGNATURES}/{model_id}", json=signature))


def change(http: httpx.Client, model_id: str, patch: dict[str, Any]) -> dict[str, Any]:
    """A JSON merge patch (RFC 7396): members that are named change, arrays are replaced whole."""
    return answer(http.patch(f"{SIGNATURES}/{model_id}", json=patch))


def models(http: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer(http.get(f"{API}/models"))["models"]
    return found


def delete(http: httpx.Client, model_id: str) -> dict[str, Any]:
    """With its tunnel. `force`: predictions that run are cancelled first."""
    return answer(http.delete(f"{SIGNATURES}/{model_id}", params={"force": "true"}))


def write_tunnel_files(registered: dict[str, Any], folder: Path) -> None:
    """For an agent to run with; only the owner may read them, the credential lets anybody in who has it."""
    for name, content in ((CREDENTIAL_FILE, registered["credential"]), (CONFIG_FILE, registered["config"])):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            json.dump(content, file, indent=2)
            file.write("\n")


# --- what a worker sends


def upload(http: httpx.Client, file: BytesIO, file_name: str, prediction_id: str, index: int) -> str:
    """As Cog's put_file_to_signed_endpoint does it; the URL at which the file can be fetched."""
    file.seek(0)
    content_type, _encoding = mimetypes.guess_type(file_name)
    headers = {"X-Prediction-ID": prediction_id}
    if content_type is not None:
        headers["Content-Type"] = content_type
    sent = http.put(f"{API}/upload/{prediction_id}_{index}_{file_name}", content=file.read(), headers=headers)
    sent.raise_for_status()
    location: str = sent.headers.get("Location", str(sent.url))
    return urlsplit(location)._replace(query="").geturl()


def report(http: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    return answer(http.post(f"{API}/webhook/prediction", json=body))


def processing(prediction_id: str) -> dict[str, Any]:
    return {
        "input": {"prompt": "a photo of sprite", "seed": 76551, "steps": 50, "guidance_scale": 5.0},
        "output": None,
        "id": prediction_id,
        "created_at": "2024-12-06T00:20:04.185000+00:00",
        "started_at": "2024-12-23T22:52:01.460145+00:00",
        "logs": "",
        "status": "processing",
    }


def succeeded(prediction_id: str, output: list[str]) -> dict[str, Any]:
    return {
        **processing(prediction_id),
        "output": output,
        "completed_at": "2024-12-23T22:52:08.814683+00:00",
        "status": "succeeded",
        "metrics": {"predict_time": 7.354538},
    }


# --- all of it


def answer(response: httpx.Response) -> dict[str, Any]:
    """Ends the program with the node's words when it refuses."""
    if response.is_error:
        sys.exit(f"{response.request.method} {response.url.path}: {response.status_code} {response.text}")
    body: dict[str, Any] = response.json()
    return body


def register(http: httpx.Client, folder: Path, name: str | None = None) -> str:
    """Without a name the model is called by its id."""
    signature = SIGNATURE if name is None else {**SIGNATURE, "name": name}
    registered = create(http, signature)
    model_id: str = registered["id"]
    write_tunnel_files(registered, folder)
    print(f"registered: {model_id}, reached as {registered['config']['ingress'][0]['hostname']}")
    first = read(http, model_id)["version"]
    inputs = [dict(one) for one in SIGNATURE["inputs"]]
    inputs[2] = {**inputs[2], "validation": {**inputs[2]["validation"], "le": "500"}}
    replace(http, model_id, {**signature, "inputs": inputs})
    change(http, model_id, {"inputs": SIGNATURE["inputs"]})
    is_back = read(http, model_id)["version"] == first
    print(f"changed twice: the version is {'the first one again' if is_back else 'another one'}")
    for model in models(http):
        print(f"model: {model['model_id']} {model['model_name']} {model['state']}")
    return model_id


def report_a_prediction(http: httpx.Client, prediction_id: str) -> None:
    """What a worker says of a prediction that it made of itself."""
    report(http, processing(prediction_id))
    url = upload(http, BytesIO(b"bytes of an image"), "ComfyUI_00031_.png", prediction_id, 0)
    report(http, succeeded(prediction_id, [url]))
    print(f"reported: {prediction_id} succeeded with {url}")


def main() -> None:
    options = parser().parse_args()
    key = os.environ.get("GRID_API_KEY")
    if not key:
        sys.exit("set GRID_API_KEY to a key with the scope runner")
    options.folder.mkdir(parents=True, exist_ok=True)
    with httpx.Client(base_url=options.url, headers={"X-API-KEY": key}, timeout=30.0) as http:
        model_id = register(http, options.folder, options.name)
        report_a_prediction(http, options.prediction_id)
        if options.delete:
            print(f"deleted: {delete(http, model_id)['id']}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Register a model at a running node, step by step.")
    node = os.environ.get("GRID_NODE_URL") or os.environ.get("GRID_URL") or "http://127.0.0.1:8888"
    made.add_argument("--url", default=node, help=f"the node (default {node})")
    made.add_argument("--name", help="of the model, unique among yours (default: its id)")
    made.add_argument("--folder", type=Path, default=Path(), help="where the tunnel's files go (default: here)")
    made.add_argument("--prediction-id", default="7", help="what the reported prediction is called (default: 7)")
    made.add_argument("--delete", action="store_true", help="remove the model at the end")
    return made


if __name__ == "__main__":
    main()
