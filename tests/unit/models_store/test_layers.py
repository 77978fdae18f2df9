"""Architecture -> function: each op means what torch's function of that name means, and nothing else is taken."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from models_store import layers
from models_store.errors import InvalidModel
from models_store.runtime import Abilities, Source
from models_store.signatures import Wish, describe

torch.manual_seed(0)
IMAGES = torch.randn(3, 4, 12, 10)
ROWS = torch.randn(5, 6)
W = {
    "w": torch.randn(7, 6), "b": torch.randn(7), "conv": torch.randn(8, 2, 3, 3), "conv_b": torch.randn(8),
    "table": torch.randn(11, 6), "n": torch.randn(6), "mean": torch.randn(4), "var": torch.rand(4) + 0.1,
    "scale": torch.randn(4), "shift": torch.randn(4),
}  # fmt: skip

CASES: list[tuple[dict[str, Any], torch.Tensor, torch.Tensor]] = [
    ({"op": "linear", "weight": "w", "bias": "b"}, ROWS, functional.linear(ROWS, W["w"], W["b"])),
    ({"op": "linear", "weight": "w"}, ROWS, functional.linear(ROWS, W["w"])),
    (
        {"op": "conv2d", "weight": "conv", "bias": "conv_b", "stride": 2, "padding": [1, 0], "groups": 2},
        IMAGES,
        functional.conv2d(IMAGES, W["conv"], W["conv_b"], 2, (1, 0), 1, 2),
    ),
    (
        {"op": "conv2d", "weight": "conv", "dilation": [2, 1], "groups": 2},
        IMAGES,
        functional.conv2d(IMAGES, W["conv"], dilation=(2, 1), groups=2),
    ),
    (
        {"op": "embedding", "weight": "table"},
        torch.tensor([[1, 10], [0, 3]]),
        functional.embedding(torch.tensor([[1, 10], [0, 3]]), W["table"]),
    ),
    (
        {"op": "layer_norm", "weight": "n", "bias": None, "eps": 1e-3},
        ROWS,
        functional.layer_norm(ROWS, [6], W["n"], None, 1e-3),
    ),
    ({"op": "layer_norm", "normalized_shape": 6}, ROWS, functional.layer_norm(ROWS, [6])),
    (
        {"op": "batch_norm", "running_mean": "mean", "running_var": "var", "weight": "scale", "bias": "shift"},
        IMAGES,
        functional.batch_norm(IMAGES, W["mean"], W["var"], W["scale"], W["shift"]),
    ),
    ({"op": "relu"}, ROWS, ROWS.relu()),
    ({"op": "gelu"}, ROWS, functional.gelu(ROWS)),
    ({"op": "gelu", "approximate": "tanh"}, ROWS, functional.gelu(ROWS, approximate="tanh")),
    ({"op": "tanh"}, ROWS, ROWS.tanh()),
    ({"op": "sigmoid"}, ROWS, ROWS.sigmoid()),
    ({"op": "softmax"}, ROWS, ROWS.softmax(-1)),
    ({"op": "softmax", "dim": 2}, IMAGES, IMAGES.softmax(2)),
    ({"op": "log_softmax", "dim": 1}, ROWS, ROWS.log_softmax(1)),
    (
        {"op": "max_pool2d", "kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        IMAGES,
        functional.max_pool2d(IMAGES, 3, 2, 1, 1, True),
    ),
    ({"op": "max_pool2d", "kernel_size": [2, 1]}, IMAGES, functional.max_pool2d(IMAGES, (2, 1))),
    (
        {"op": "avg_pool2d", "kernel_size": 3, "padding": 1, "count_include_pad": False},
        IMAGES,
        functional.avg_pool2d(IMAGES, 3, padding=1, count_include_pad=False),
    ),
    ({"op": "flatten"}, IMAGES, IMAGES.flatten(1)),
    ({"op": "flatten", "start_dim": 2, "end_dim": 3}, IMAGES, IMAGES.flatten(2, 3)),
]


@pytest.mark.parametrize(("layer", "x", "expected"), CASES, ids=[str(case[0]["op"]) for case in CASES])
def test_an_op_gives_what_torch_gives(layer: dict[str, Any], x: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(layers.build({"layers": [layer]}, W, {})(x), expected, rtol=1e-5, atol=1e-6)


def test_every_op_of_the_contract_is_there_and_tried() -> None:
    assert {case[0]["op"] for case in CASES} == set(layers.OPS)
    assert len(layers.OPS) == 14


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        (None, "object"),
        ({}, "name"),
        ({"layers": []}, "1 to"),
        ({"layers": "relu"}, "1 to"),
        ({"layers": [{"op": "relu"}], "name": "x"}, "nothing else"),
        ({"layers": [{"op": "relu"}] * 4097}, "1 to"),
        ({"layers": [{"op": "eval"}]}, "op must be"),
        ({"layers": [{"op": ["relu"]}]}, "op must be"),
        ({"layers": ["relu"]}, "op must be"),
        ({"layers": [{"op": "relu", "inplace": True}]}, "inplace is not known"),
        ({"layers": [{"op": "linear"}]}, "weight is needed"),
        ({"layers": [{"op": "linear", "weight": "nowhere"}]}, "no key"),
        ({"layers": [{"op": "linear", "weight": 0}]}, "no key"),
        ({"layers": [{"op": "conv2d", "weight": "conv", "stride": 0}]}, "stride"),
        ({"layers": [{"op": "conv2d", "weight": "conv", "padding": [1, 2, 3]}]}, "padding"),
        ({"layers": [{"op": "conv2d", "weight": "conv", "padding": 2**40}]}, "padding"),
        ({"layers": [{"op": "conv2d", "weight": "conv", "groups": True}]}, "groups"),
        ({"layers": [{"op": "max_pool2d"}]}, "kernel_size"),
        ({"layers": [{"op": "layer_norm"}]}, "normalized_shape"),
        ({"layers": [{"op": "layer_norm", "weight": "n", "eps": float("nan")}]}, "eps"),
        ({"layers": [{"op": "gelu", "approximate": "none; import os"}]}, "approximate"),
        ({"layers": [{"op": "softmax", "dim": "0"}]}, "dim"),
        ({"name": "nobody", "config": {}}, "no architecture"),
        ({"name": "made", "config": []}, "architecture must be"),
        ({"name": "made", "config": {}, "more": 1}, "architecture must be"),
    ],
)
def test_what_is_not_in_the_grammar_is_refused_by_name(architecture: Any, told: str) -> None:
    with pytest.raises(InvalidModel, match=told):
        layers.build(architecture, W, {"made": lambda config: nn.Linear(2, 2)})


def test_a_registered_architecture_takes_the_state_dict_and_nothing_else() -> None:
    def made(config: dict[str, Any]) -> nn.Module:
        return nn.Linear(config["width"], 3)

    local = nn.Linear(4, 3)
    function = layers.build({"name": "made", "config": {"width": 4}}, local.state_dict(), {"made": made})
    x = torch.randn(2, 4)
    torch.testing.assert_close(function(x), local(x))
    for config, weights in [({"width": 5}, local.state_dict()), ({}, local.state_dict()), ({"width": 4}, W)]:
        with pytest.raises(InvalidModel, match="does not fit"):
            layers.build({"name": "made", "config": config}, weights, {"made": made})


# --- signatures -----------------------------------------------------------------------------------------------------


def described(tmp_path: Path, architecture: Any, wish: Wish, weights: dict[str, torch.Tensor] = W) -> dict[str, Any]:
    file = tmp_path / "model.safetensors"
    save_file(weights, file)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return describe(Source(descriptor, "safetensors", architecture), wish, Abilities()).body()
    finally:
        os.close(descriptor)


PLAIN = Wish(None, None, True)


def one(name: str, datatype: str, *shape: int) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": datatype, "shape": list(shape)}]


@pytest.mark.parametrize(
    ("layer", "inputs", "outputs"),
    [
        (CASES[0][0], one("INPUT__0", "FP32", -1, 6), one("OUTPUT__0", "FP32", -1, 7)),
        (CASES[2][0], one("INPUT__0", "FP32", -1, 4, -1, -1), one("OUTPUT__0", "FP32", -1, 8, -1, -1)),
        (CASES[4][0], one("INPUT__0", "INT64", -1, -1), one("OUTPUT__0", "FP32", -1, -1, 6)),
    ],
)
def test_the_signature_follows_from_the_first_layer(
    tmp_path: Path, layer: Any, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> None:
    found = described(tmp_path, {"layers": [layer]}, PLAIN)
    assert found == {"inputs": inputs, "outputs": outputs, "batchable": True}


def test_images_of_the_one_size_that_the_last_layer_takes_are_found(tmp_path: Path) -> None:
    weights = {"conv": torch.zeros(2, 1, 3, 3), "w": torch.zeros(5, 2 * 13 * 13)}
    architecture = [
        {"op": "conv2d", "weight": "conv"},
        {"op": "max_pool2d", "kernel_size": 2},
        {"op": "flatten"},
        {"op": "linear", "weight": "w"},
    ]
    found = described(tmp_path, {"layers": architecture}, PLAIN, weights)
    assert found["inputs"] == one("INPUT__0", "FP32", -1, 1, -1, -1)
    assert found["outputs"] == one("OUTPUT__0", "FP32", -1, 5)


def test_declared_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    wish = Wish(one("pixels", "FP32", -1, 4, 12, 10), one("features", "FP32", -1, -1), True)
    found = described(tmp_path, {"layers": [{"op": "relu"}, {"op": "flatten"}]}, wish)
    assert found["inputs"] == one("pixels", "FP32", -1, 4, 12, 10)
    assert found["outputs"] == one("features", "FP32", -1, -1)


@pytest.mark.parametrize(
    ("layer", "wish", "told"),
    [
        ({"op": "relu"}, PLAIN, "inputs must be declared"),
        ({"op": "relu"}, Wish(one("x", "FP32", 1, 3), None, True), "must be -1"),
        ({"op": "softmax", "dim": 0}, Wish(one("x", "FP32", -1, 3), None, True), "mixes the rows"),
        ({"op": "softmax", "dim": -2}, Wish(one("x", "FP32", -1, 3), None, True), "mixes the rows"),
        ({"op": "flatten", "start_dim": 0}, Wish(one("x", "FP32", -1, 3), None, True), "not the batch"),
        ({"op": "linear", "weight": "w"}, Wish(one("x", "FP32", -1, 5), None, True), "do not fit"),
        ({"op": "linear", "weight": "w"}, Wish(one("x", "FP64", -1, 6), None, True), "does not take FP64"),
        ({"op": "embedding", "weight": "table"}, Wish(one("x", "FP32", -1, 6), None, True), "does not take FP32"),
        ({"op": "linear", "weight": "w"}, Wish(None, one("y", "FP32", -1, 8), True), "declared outputs"),
        ({"op": "linear", "weight": "w"}, Wish(None, one("y", "FP64", -1, 7), True), "declared outputs"),
        ({"op": "relu"}, Wish(one("x", "FP32", -1, 2) * 2, None, True), "same name"),
        ({"op": "relu"}, Wish(one("x", "FP32", -1, 2**31 - 1, 2**31 - 1), None, True), "too large"),
        ({"op": "max_pool2d", "kernel_size": 1, "padding": 0, "stride": 0}, PLAIN, "stride"),
    ],
)
def test_what_does_not_fit_together_is_refused_at_serve_time(tmp_path: Path, layer: Any, wish: Wish, told: str) -> None:
    with pytest.raises(InvalidModel, match=told):
        described(tmp_path, {"layers": [layer]}, wish)


def test_a_model_that_is_no_batch_may_mix_rows(tmp_path: Path) -> None:
    found = described(tmp_path, {"layers": [{"op": "softmax", "dim": 0}]}, Wish(one("x", "FP32", 4), None, False))
    assert found == {"inputs": one("x", "FP32", 4), "outputs": one("OUTPUT__0", "FP32", 4), "batchable": False}


def test_the_check_reads_no_weights(tmp_path: Path) -> None:
    """A hole of 4 GiB is described at once."""
    file = tmp_path / "large.safetensors"
    width = 32768
    header = f'{{"w":{{"dtype":"F32","shape":[{width},{width}],"data_offsets":[0,{width * width * 4}]}}}}'.encode()
    with file.open("wb") as output:
        output.write(len(header).to_bytes(8, "little") + header)
        output.truncate(8 + len(header) + width * width * 4)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        source = Source(descriptor, "safetensors", {"layers": [{"op": "linear", "weight": "w"}]})
        found = describe(source, PLAIN, Abilities())
    finally:
        os.close(descriptor)
    assert found.outputs[0].shape == (-1, width)
