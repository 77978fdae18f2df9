"""Hosted models and datasets of a node: serve, find, fetch, run."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from pydantic import Field

from grid_client.arrays import is_array, like
from grid_client.backoff import Backoff
from grid_client.calls import Calls
from grid_client.errors import GridError
from grid_client.inference import LENGTH, outputs_of, request_of
from grid_client.messages import Message
from grid_client.model_bytes import Model, ModelBytes, opened
from grid_client.model_upload import ModelUpload
from grid_client.transfer import Http, Progress

CALL_TIMEOUT = 30.0
TRANSFER_TIMEOUT = 3600.0
EVENT_MAX = 512 * 1024
"""Bytes up to which a model goes as an event; a node takes 1 MiB there, all of the event together."""
NOT_FOUND = "Model not found."
_HEAD_CODES = {
    403: ("download_not_allowed", "You're not allowed to download this model."),
    404: ("model_not_found", NOT_FOUND),
}
"""What the answer to HEAD, which has no body, means."""


class ModelInfo(Message):
    """The newest version of a model. `sha256` is None unless the caller may download it, `size` is in bytes."""

    id: str
    version: int
    versions: list[int]
    format: str
    size: int
    sha256: str | None = None
    allow_download: bool
    allow_remote_inference: bool
    mpc: bool
    tags: list[str] = Field(default_factory=list)
    description: str = ""
    created_at: str


@dataclass(frozen=True)
class Served:
    """A model that the node has on disk. `version` is None where the answer did not tell it (small models)."""

    model_id: str
    sha256: str
    size: int
    version: int | None


def no_progress(done: int, total: int) -> None:
    return


class ModelClient:
    """One caller at one node; without `api_key` it may do what the node leaves open to everybody.

    Threads may share it; `close` it, or use it as a context manager. Every method raises GridError with the node's
    code (`model_not_found`, `download_not_allowed`, `model_exists`, ...), ConnectionLost, or DeadlineExceeded.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        backoff: Callable[[], Backoff] = Backoff,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api_key = api_key
        self._sleep = sleep
        self._clock = clock
        self._http = Http(url, self._bearer, sleep=sleep, clock=clock)
        auth = {} if api_key is None else {"api_key": api_key}
        self._calls = Calls(url.rstrip("/"), auth, backoff=backoff, sleep=sleep, clock=clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._calls.close()
        self._http.close()

    # --- what is there

    def list(self) -> list[str]:
        """Ids, oldest first."""
        found: list[str] = self._ask("/models")["models"]
        return found

    def detailed(self, tag: str | None = None) -> Sequence[ModelInfo]:
        """The newest version of each model, or of those with this tag."""
        query = {} if tag is None else {"tag": tag}
        return [ModelInfo.read(one) for one in self._ask("/detailed_models_list", query)["models"]]

    def is_copy_allowed(self, model_id: str) -> bool:
        """Whether the model may be fetched. Raises GridError `model_not_found`."""
        try:
            self._ask(f"/is_model_copy_allowed/{quote(model_id, safe='')}")
        except GridError as error:
            if error.message == NOT_FOUND:
                raise GridError("model_not_found", NOT_FOUND, status=404, body=error.body) from None
            if "code" in error.body:
                raise
            return False
        return True

    # --- bytes in

    def serve(
        self,
        model_id: str,
        model: Model,
        *,
        progress: Progress = no_progress,
        timeout: float = TRANSFER_TIMEOUT,
        resume: str | Path | None = None,
        **fields: Any,
    ) -> Served:
        """Serve bytes, a file, or a state dict of torch tensors or numpy arrays (then as safetensors).

        `fields` are those of `/serve_model`: allow_download, allow_remote_inference, format, version, tags,
        description, inputs, outputs, batchable, architecture. A small model goes as one event, a larger one as an
        upload that goes on after a break, with `resume` (a path for a small file) in a later call too. The node
        compares the sha256.
        """
        if isinstance(model, Mapping):
            fields = {"format": "safetensors", **fields}
        deadline = self._clock() + timeout
        with opened(model) as content:
            wanted = {"model_id": model_id, "sha256": content.sha256, **fields}
            version = None
            if content.size > EVENT_MAX or not self._served_by_event(wanted, content, progress, timeout):
                upload = ModelUpload(
                    self._http,
                    content,
                    wanted,
                    deadline=deadline,
                    progress=progress,
                    resume=None if resume is None else Path(resume),
                    sleep=self._sleep,
                    clock=self._clock,
                )
                version = upload.send()
            return Served(model_id, content.sha256, content.size, version)

    def _served_by_event(self, fields: dict[str, Any], content: ModelBytes, progress: Progress, timeout: float) -> bool:
        """False when the node wants it another way."""
        message = {"idempotency_key": str(uuid.uuid4()), **fields, "model": content.read(0, content.size)}
        try:
            self._calls.ask("/serve_model", message, timeout)
        except GridError as error:
            if error.code == "message_too_large":
                return False
            raise
        progress(content.size, content.size)
        return True

    # --- bytes out

    def get(self, model_id: str, version: int | None = None) -> bytes:
        """A small model's bytes, by event. Raises GridError `model_too_large` for what `fetch` is for."""
        query = {} if version is None else {"version": version}
        found: bytes = self._ask(f"/get_model/{quote(model_id, safe='')}", query)["serialized_model"]
        return found

    def fetch(
        self,
        model_id: str,
        path: Path | str,
        *,
        version: int | None = None,
        progress: Progress = no_progress,
        timeout: float = TRANSFER_TIMEOUT,
    ) -> str:
        """Write the bytes to `path` and return their sha256, which was checked before the file appeared.

        After a break only the rest is fetched, in a later call too.
        """
        middle = "" if version is None else f"/versions/{version}"
        address = f"models/{quote(model_id, safe='')}{middle}/content"
        try:
            return self._http.download(address, Path(path), timeout=timeout, progress=progress)
        except GridError as error:
            if error.body or error.status not in _HEAD_CODES:
                raise
            code, text = _HEAD_CODES[error.status]
            raise GridError(code, text, status=error.status) from None

    # --- running

    def run(self, model_id: str, data: Any, *, version: int | None = None, timeout: float = CALL_TIMEOUT) -> Any:
        """The model's answer to `data`: lists for lists, numpy arrays for arrays, torch tensors for tensors.

        `data` is one nested list or array, or a mapping from the names of inputs. A model with one output gives its
        value, one with several a dict by their names.
        """
        sample = next(iter(data.values()), None) if isinstance(data, Mapping) else data
        if is_array(sample):
            return self._run_arrays(model_id, data, sample, version, timeout)
        wanted = {"model_id": model_id, "data": data} | ({} if version is None else {"version": version})
        body = self._calls.ask("/run_inference", wanted, timeout)
        return body.get("outputs", body["prediction"])

    def _run_arrays(self, model_id: str, data: Any, sample: Any, version: int | None, timeout: float) -> Any:
        inputs = data if isinstance(data, Mapping) else {self._only_input(model_id, version): data}
        body, headers = request_of(inputs, timeout)
        address = f"{_v2(model_id, version)}/infer"
        answer = self._http.retried(
            lambda: self._http.request("POST", address, body=body, headers=headers), self._clock() + timeout
        )
        outputs = {
            name: like(array, sample) for name, array in outputs_of(answer.content, answer.headers.get(LENGTH)).items()
        }
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _only_input(self, model_id: str, version: int | None) -> str:
        """Raises ValueError when the model has several."""
        inputs = self.signature(model_id, version)["inputs"]
        if len(inputs) != 1:
            names = ", ".join(one["name"] for one in inputs)
            raise ValueError(f"the model has several inputs; give a mapping of {names}")
        return str(inputs[0]["name"])

    def signature(self, model_id: str, version: int | None = None) -> dict[str, Any]:
        """`inputs` and `outputs`, each with name, datatype and shape; -1 in a shape is any length."""
        return self._http.json("GET", _v2(model_id, version))

    # --- changing

    def delete(self, model_id: str, version: int | None = None) -> None:
        """Delete the model, or one version of it."""
        wanted = {"model_id": model_id} | ({} if version is None else {"version": version})
        self._calls.ask("/delete_model", wanted, CALL_TIMEOUT, repeatable=False)

    # --- encrypted models

    def declare(self, model_id: str, shares: Sequence[Mapping[str, str]], **fields: Any) -> None:
        """Tell the node of an encrypted model whose shares are placed: it keeps the table and never sees the weights.

        A share has `worker`, `address` and `sha256`; `fields` are set, crypto_provider, precision, tags, description.
        """
        wanted = {"model_id": model_id, "mpc": True, "shares": [dict(one) for one in shares], **fields}
        self._calls.ask("/serve_model", {"idempotency_key": str(uuid.uuid4()), **wanted}, CALL_TIMEOUT)

    def search_encrypted(self, model_id: str, *, details: bool = False) -> dict[str, Any]:
        """`workers` and `crypto_provider` of an encrypted model; with `details` also `set` and `shares`."""
        wanted = {"model_id": model_id} | ({"details": True} if details else {})
        found: dict[str, Any] = self._ask("/search-encrypted-models", wanted)
        return found

    # --- datasets

    def search(self, *terms: str | int) -> bool:
        """Whether one dataset matches every term: its id, a tag, or a part of its description."""
        answer = self._ask("/search", {"query": [*terms]})
        if not isinstance(answer, dict) or "content" not in answer:
            raise GridError("invalid_payload", "the node took it for no search", status=400)
        return bool(answer["content"])

    def tags(self) -> Sequence[str]:
        """The tags of datasets, sorted."""
        found: Sequence[str] = self._ask("/dataset-tags")
        return found

    def datasets(self) -> Sequence[dict[str, Any]]:
        """Every dataset that the caller may see, oldest first."""
        found: Sequence[dict[str, Any]] = self._ask("/datasets")["datasets"]
        return found

    def register_dataset(self, dataset_id: str, **fields: Any) -> None:
        """`fields`: description, tags, uri, sha256, size, private."""
        self._calls.ask("/register_dataset", {"dataset_id": dataset_id, **fields}, CALL_TIMEOUT, repeatable=False)

    def tag_dataset(self, dataset_id: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Sequence[str]:
        """The tags that it has then."""
        wanted = {"dataset_id": dataset_id, "add": [*add], "remove": [*remove]}
        found: Sequence[str] = self._ask("/tag_dataset", wanted)["tags"]
        return found

    def delete_dataset(self, dataset_id: str) -> None:
        self._calls.ask("/delete_dataset", {"dataset_id": dataset_id}, CALL_TIMEOUT, repeatable=False)

    def _ask(self, event: str, data: Mapping[str, Any] | None = None) -> Any:
        return self._calls.ask(event, dict(data or {}), CALL_TIMEOUT)

    def _bearer(self, method: str, target: str, body: bytes | None) -> dict[str, str]:
        return {} if self._api_key is None else {"Authorization": f"Bearer {self._api_key}"}


def _v2(model_id: str, version: int | None) -> str:
    middle = "" if version is None else f"/versions/{version}"
    return f"v2/models/{quote(model_id, safe='')}{middle}"
