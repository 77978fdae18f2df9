"""Honest models of torch as archives, for tests that exchange something in them."""

import io

import torch


class Pair(torch.nn.Module):
    """Two inputs whose sizes are bound to each other, a constant, a buffer: every kind of thing an export holds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)
        self.register_buffer("scale", torch.full((4,), 2.0))
        self.offset = torch.tensor([1.0, 2.0, 3.0, 4.0])

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        both = torch.cat([self.linear(x), self.linear(y)]) * self.scale + self.offset
        return {"both": both.reshape(-1), "half": both[: x.shape[0] // 2]}


def exported() -> bytes:
    sizes = {"x": {0: torch.export.Dim.AUTO}, "y": {0: torch.export.Dim.AUTO}}
    program = torch.export.export(Pair().eval(), (torch.randn(4, 3), torch.randn(4, 3)), dynamic_shapes=sizes)
    out = io.BytesIO()
    torch.export.save(program, out)
    return out.getvalue()


def scripted(module: torch.nn.Module | None = None) -> bytes:
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(module or torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())), out)
    return out.getvalue()
