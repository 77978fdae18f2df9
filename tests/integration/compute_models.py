"""Architectures for the tests of compute processes: what an operator might register, and what a bad model may do."""

import ctypes
import time
from typing import Any

import torch
from torch import nn


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))


class Sleepy(_Model):
    """Sleeps as many seconds as the largest value says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu" and x.numel():
            time.sleep(float(x.max()))
        return x * self.one


class Fussy(_Model):
    """Takes no negative number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu" and bool((x < 0).any()):
            raise ValueError("a secret of the model")
        return x * self.one


class Deadly(_Model):
    """Ends its process when it sees a negative number; above 0 it holds the interpreter as long as it is alive."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu" and bool((x < 0).any()):
            ctypes.string_at(0)
        if x.device.type == "cpu" and bool((x > 0).any()):
            sum(range(10**13))
        return x * self.one


class Wrong(_Model):
    """Gives something that its signature does not say."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: torch.Tensor) -> Any:
        if x.device.type == "meta":
            return x * self.one
        return {"text": "no tensor", "shape": x[:, :1], "dtype": x.double(), "two": (x, x), "rows": x[:1]}[self.what]


class SumAndProduct(_Model):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": a + b, "product": a * b}


FACTORIES: dict[str, Any] = {
    "sleepy": lambda config: Sleepy(),
    "fussy": lambda config: Fussy(),
    "deadly": lambda config: Deadly(),
    "wrong": lambda config: Wrong(config["what"]),
    "sum_and_product": lambda config: SumAndProduct(),
}
sleepy, fussy, deadly, wrong, sum_and_product = FACTORIES.values()
