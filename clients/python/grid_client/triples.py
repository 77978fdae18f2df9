"""Matrix triples of a crypto provider: asked for by a client, fetched part by part by the holders. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from grid_client.errors import GridError
from grid_client.shares import TOKEN_HEADER
from grid_client.transfer import Http

PATH = "secure_linear"
BINARY = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Triple:
    """`tokens` open one part each, once, and not for the key that asked for the triple."""

    id: str
    tokens: list[str]


class Provider:
    """A node that makes triples, seen with a key."""

    def __init__(self, address: str, api_key: str) -> None:
        self._key = api_key
        self._http = Http(address, self._sign)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def make(self, rows: int, inputs: int, outputs: int, holders: int) -> Triple:
        """u [rows, inputs], v [inputs, outputs] and z = u v, in as many parts as there are holders."""
        asked = {"rows": rows, "inputs": inputs, "outputs": outputs, "holders": holders}
        headers = {"Content-Type": "application/json"}
        said = self._http.json("POST", f"{PATH}/triples", body=json.dumps(asked).encode(), headers=headers)
        try:
            return Triple(str(said["triple"]), [str(token) for token in said["tokens"]])
        except (KeyError, TypeError):
            raise GridError("bad_answer", "the provider gave no triple") from None

    def fetch(self, triple: str, index: int, token: str) -> bytes:
        """One part, a safetensors file; it is given once."""
        path = f"{PATH}/triples/{triple}/{index}"
        return self._http.request("GET", path, headers={TOKEN_HEADER: token, "Accept-Encoding": "identity"}).content

    def _sign(self, method: str, target: str, body: bytes | None) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}
