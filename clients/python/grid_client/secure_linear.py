"""y = x W^T + b, where W and b are shares at holder nodes, x is shared out here, and nobody but this client sees y.

For each call a crypto provider (a third node) makes a fresh matrix triple u, v, z = u v and hands each holder its
part. A holder answers d_i = x_i - u_i and e_i = W_i^T - v_i, which are uniform; this client adds them up to d and e and
gives both to all holders, whose shares of the result add up to y. Holders that do not collude with each other or with
the provider learn the shapes alone; the provider learns nothing else either. All are trusted to follow the protocol.
(Whoever may ask for y of any x can compute W from the answers: that is no property of the protocol.)

Error: with p bits of precision, the ring computes exactly on x' = x + dx, W' = W + dW, b' = b + db, each of which is
off by at most 2^-p / 2 (see `sharing`). So for every output

    |y' - y| <= 2^-p / 2 * (sum_k |W_mk| + sum_k |x_nk| + 1) + K * 2^-2p / 4

with K inputs, plus the rounding of y' to the type of x. It holds while |y'| * 2^2p < 2^63: for p = 16, |y| < 2^31.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from grid_client.errors import GridError
from grid_client.shares import TOKEN_HEADER, share_id
from grid_client.sharing import DTYPES, encoded, shared
from grid_client.tensor_files import MemorySource, NotTensors, TensorFile, header
from grid_client.transfer import Http
from grid_client.triples import BINARY, PATH, Provider


@dataclass(frozen=True)
class ShareHolder:
    """Where a share is, and what reads it there: this client's key, or the share's token."""

    address: str
    api_key: str = ""
    token: str | None = None

    def sign(self, method: str, target: str, body: bytes | None) -> Mapping[str, str]:
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return key | ({TOKEN_HEADER: self.token} if self.token is not None else {})


def tolerance(x: torch.Tensor, weight: torch.Tensor, precision: int) -> torch.Tensor:
    """The bound above, for each output: [rows, outputs] in float64."""
    sums = weight.double().abs().sum(1)[None, :] + x.double().abs().sum(1)[:, None] + 1.0
    return sums * 2.0 ** -(precision + 1) + weight.shape[1] * 2.0 ** -(2 * precision + 2)


class SecureLinear:
    """A linear layer of an encrypted model: `SecureLinear(...)(x)`.

    `holders` in the order of the shares; `provider`: address and this client's key; `weight` [outputs, inputs] and
    `bias` [outputs] are names of tensors of the model; `precision` is that of the set. The holders must know the
    provider (`share_peers`). Raises GridError, sharing.ValueOutOfRange.
    """

    def __init__(
        self,
        holders: Sequence[ShareHolder],
        provider: tuple[str, str],
        set_id: str,
        weight: str,
        bias: str | None = None,
        *,
        outputs: int,
        precision: int = 16,
    ) -> None:
        self._holders = holders
        self._provider = provider
        self._set = set_id
        self._weight = weight
        self._bias = bias
        self._outputs = outputs
        self._precision = precision

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [rows, inputs] of a float type -> y [rows, outputs] of the same type."""
        rows, inputs = x.shape
        with Provider(*self._provider) as provider:
            triple = provider.make(rows, inputs, self._outputs, len(self._holders))
        parts = shared(encoded(x.cpu(), self._precision, "x"), len(self._holders))

        def mask(index: int) -> tuple[str, dict[str, torch.Tensor]]:
            return self._mask(index, parts[index], triple.id, triple.tokens[index])

        with ThreadPoolExecutor(len(self._holders)) as pool:
            masked = list(pool.map(mask, range(len(self._holders))))
            opened = {name: _total([tensors[name] for _, tensors in masked]) for name in ("d", "e")}
            body = written(opened, {})
            results = list(pool.map(lambda index: self._finish(index, masked[index][0], body), range(len(masked))))
        total = _total([tensors["y"] for tensors in results])
        return (total.double() * 2.0 ** (-2 * self._precision)).to(x.dtype)

    def _mask(self, index: int, x: torch.Tensor, triple: str, token: str) -> tuple[str, dict[str, torch.Tensor]]:
        asked = {
            "share": share_id(self._set, index),
            "weight": self._weight,
            "provider": self._provider[0],
            "triple": triple,
            "token": token,
        }
        if self._bias is not None:
            asked["bias"] = self._bias
        response, tensors = self._ask(index, "mask", written({"x": x}, asked))
        return response.get("Secure-Session", ""), tensors

    def _finish(self, index: int, session: str, body: bytes) -> dict[str, torch.Tensor]:
        return self._ask(index, f"finish/{session}", body)[1]

    def _ask(self, index: int, path: str, body: bytes) -> tuple[Mapping[str, str], dict[str, torch.Tensor]]:
        holder = self._holders[index]
        http = Http(holder.address, holder.sign)
        try:
            answer = http.request("POST", f"{PATH}/{path}", body=body, headers=BINARY)
        finally:
            http.close()
        return answer.headers, read(answer.content)


def written(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Tensors of the ring as a safetensors file."""
    file = io.BytesIO()
    file.write(header({name: tuple(tensor.shape) for name, tensor in tensors.items()}, "I64", metadata))
    for tensor in tensors.values():
        file.write(tensor.contiguous().numpy().tobytes())
    return file.getvalue()


def read(content: bytes) -> dict[str, torch.Tensor]:
    """Raises GridError."""
    try:
        file = TensorFile(MemorySource(content))
        found = {}
        for name, layout in file.layouts.items():
            elements = file.read(name, 0, layout.count)
            found[name] = torch.frombuffer(elements, dtype=DTYPES[layout.dtype]).reshape(layout.shape)
    except (NotTensors, ValueError):
        raise GridError("bad_answer", "the holder's answer is no tensors") from None
    return found


def _total(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total += tensor
    return total
