"""Small pictures of digits, made up, and a network that learns to read them in a second or two."""

import torch
from torch import nn

SIDE = 12
SEGMENTS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
"""Which of the seven segments are lit for 0 to 9: a on top, then clockwise, g in the middle."""
PLACES = {
    "a": (slice(1, 2), slice(3, 9)),
    "b": (slice(1, 6), slice(8, 9)),
    "c": (slice(6, 11), slice(8, 9)),
    "d": (slice(10, 11), slice(3, 9)),
    "e": (slice(6, 11), slice(3, 4)),
    "f": (slice(1, 6), slice(3, 4)),
    "g": (slice(5, 6), slice(3, 9)),
}
ARCHITECTURE = {
    "layers": [
        {"op": "conv2d", "weight": "0.weight", "bias": "0.bias", "padding": 1},
        {"op": "relu"},
        {"op": "max_pool2d", "kernel_size": 2},
        {"op": "flatten"},
        {"op": "linear", "weight": "4.weight", "bias": "4.bias"},
    ]
}
INPUTS = [{"name": "pictures", "datatype": "FP32", "shape": [-1, 1, SIDE, SIDE]}]


def digits(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of shape (count, 1, 12, 12), shifted and noisy, and the digits that they show."""
    labels = torch.randint(0, 10, (count,), generator=generator)
    shifts = torch.randint(-1, 2, (count, 2), generator=generator)
    clean = torch.stack([_drawn(digit) for digit in range(10)])
    pictures = torch.stack(
        [torch.roll(clean[label], tuple(shift.tolist()), (0, 1)) for label, shift in zip(labels, shifts, strict=True)]
    )
    return (pictures + 0.3 * torch.randn(pictures.shape, generator=generator)).unsqueeze(1), labels


def _drawn(digit: int) -> torch.Tensor:
    picture = torch.zeros(SIDE, SIDE)
    for segment in SEGMENTS[digit]:
        picture[PLACES[segment]] = 1.0
    return picture


def trained(generator: torch.Generator, steps: int = 120) -> nn.Sequential:
    torch.manual_seed(generator.initial_seed())
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(288, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(steps):
        pictures, labels = digits(64, generator)
        loss = nn.functional.cross_entropy(network(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()
