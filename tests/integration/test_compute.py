"""Models run in processes of their own: right, bounded, and unharmed by each other."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from grid_node.compute import pool
from grid_node.compute.client import ComputeProcesses
from grid_node.compute.port import Runnable
from grid_node.errors import (
    ComputeUnavailable,
    FormatNotRunnable,
    GridError,
    InferenceFailed,
    InferenceTimeout,
    InferenceTooLarge,
    InvalidModel,
    ModelNotFound,
    ModelNotReady,
    QueueFull,
)
from grid_node.settings import Settings
from models_store.dtypes import BY_DATATYPE, DATATYPE
from models_store.tensors import Signature, Tensor
from tests.nodes import ROOT, until

FOLDER = Path(__file__).parent
NAMES = ("sleepy", "fussy", "deadly", "wrong", "sum_and_product")
PLACES = {name: f"compute_models:{name}" for name in NAMES}
LONG = 60.0
MLP = [
    {"op": "linear", "weight": "0.weight", "bias": "0.bias"},
    {"op": "relu"},
    {"op": "linear", "weight": "2.weight", "bias": "2.bias"},
]
_numbers = itertools.count(1)


def started(killed: Callable[[str], None] = lambda key: None, **settings: Any) -> ComputeProcesses:
    defaults = {"compute_threads": 1}
    return ComputeProcesses(Settings.load({}, **{**defaults, **settings}), killed, PLACES, [FOLDER])


@pytest.fixture(scope="module")
def compute() -> Iterator[ComputeProcesses]:
    processes = started()
    yield processes
    processes.stop(1.0)


@pytest.fixture(scope="module")
def small() -> Iterator[ComputeProcesses]:
    """With room for two models of a megabyte, 16 requests for each, 16 KiB for a request or an answer."""
    processes = started(compute_memory=2_500_000, infer_queue_max=16, infer_max_bytes=4096)
    yield processes
    processes.stop(1.0)


@pytest.fixture(scope="module")
def pair() -> Iterator[ComputeProcesses]:
    """Two processes, which unload what nobody asks for."""
    processes = started(compute_processes=2, compute_idle_unload=0.5)
    processes.start()
    until(lambda: len(processes._pool.ready) == 2, LONG)
    yield processes
    processes.stop(1.0)


class Mortal:
    """Processes that are killed and end models early, and the strikes that were counted."""

    def __init__(self) -> None:
        self.strikes: list[str] = []
        self.compute = started(self.strikes.append, infer_timeout=0.5, models_check_timeout=5.0)


@pytest.fixture(scope="module")
def all_mortal() -> Iterator[Mortal]:
    made = Mortal()
    yield made
    made.compute.stop(0.0)
    assert made.compute.pids == []


@pytest.fixture
def mortal(all_mortal: Mortal, monkeypatch: pytest.MonkeyPatch) -> Mortal:
    monkeypatch.setattr(pool, "OVERDUE", 0.5)
    all_mortal.compute._pool.wait_ready(time.monotonic() + LONG)
    all_mortal.strikes.clear()
    return all_mortal


class Served:
    """A model as it would be hosted: its file, its signature, its key."""

    def __init__(
        self,
        compute: ComputeProcesses,
        file: Path,
        weights: dict[str, torch.Tensor],
        architecture: dict[str, Any],
        inputs: list[dict[str, Any]] | None = None,
        outputs: list[dict[str, Any]] | None = None,
        batchable: bool = True,
    ) -> None:
        save_file(weights, file)
        self.compute = compute
        self.signature: Signature = compute.describe(file, "safetensors", architecture, inputs, outputs, batchable)
        key = f"{next(_numbers)}/1"
        self.model = Runnable(key, "safetensors", file.stat().st_size, architecture, self.signature, lambda: file)

    @property
    def key(self) -> str:
        return self.model.key

    def infer(self, *inputs: torch.Tensor, timeout: float = LONG) -> list[torch.Tensor]:
        specs = self.signature.inputs
        sent = [packed(spec.name, one) for spec, one in zip(specs, inputs, strict=True)]
        return [unpacked(one) for one in self.compute.infer(self.model, sent, timeout)]

    def __call__(self, *inputs: torch.Tensor, timeout: float = LONG) -> torch.Tensor:
        return self.infer(*inputs, timeout=timeout)[0]


def packed(name: str, tensor: torch.Tensor) -> Tensor:
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return Tensor(name, DATATYPE[tensor.dtype], tuple(tensor.shape), raw)


def unpacked(tensor: Tensor) -> torch.Tensor:
    dtype = BY_DATATYPE[tensor.datatype]
    raw = bytearray(tensor.data)
    return (torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)).reshape(tensor.shape)


def registered(
    compute: ComputeProcesses, tmp_path: Path, name: str, config: dict[str, Any] | None = None, width: int = 2
) -> Served:
    declared = [{"datatype": "FP32", "shape": [-1, width]}]
    architecture = {"name": name, "config": config or {}}
    return Served(compute, tmp_path / f"{name}.safetensors", {"one": torch.ones(1)}, architecture, declared)


def mlp(compute: ComputeProcesses, tmp_path: Path, *widths: int) -> tuple[Served, nn.Sequential]:
    first, middle, last = widths or (8, 16, 4)
    local = nn.Sequential(nn.Linear(first, middle), nn.ReLU(), nn.Linear(middle, last)).eval().requires_grad_(False)
    file = tmp_path / f"mlp-{next(_numbers)}.safetensors"
    return Served(compute, file, local.state_dict(), {"layers": MLP}), local


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """All at the same time; results or errors in their order."""

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except GridError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(outcome, calls))


# --- right answers --------------------------------------------------------------------------------------------------


def test_a_state_dict_gives_what_the_local_module_gives(compute: ComputeProcesses, tmp_path: Path) -> None:
    served, local = mlp(compute, tmp_path)
    assert compute.state(served.key) == "unloaded"
    x = torch.randn(5, 8)
    torch.testing.assert_close(served(x), local(x), rtol=1e-5, atol=1e-6)
    assert compute.state(served.key) == "ready"


def test_a_cnn_gives_what_the_local_module_gives(compute: ComputeProcesses, tmp_path: Path) -> None:
    local = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, stride=2),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.LayerNorm(72),
        nn.Linear(72, 10),
        nn.Tanh(),
        nn.LogSoftmax(-1),
    )
    local.train()(torch.randn(16, 1, 28, 28))  # batch_norm has something to remember
    local.eval().requires_grad_(False)
    norm = {name: f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    architecture = [
        {"op": "conv2d", "weight": "0.weight", "bias": "0.bias", "padding": 1},
        {"op": "batch_norm", **norm},
        {"op": "gelu"},
        {"op": "max_pool2d", "kernel_size": 2},
        {"op": "conv2d", "weight": "4.weight", "bias": "4.bias", "stride": 2},
        {"op": "sigmoid"},
        {"op": "avg_pool2d", "kernel_size": 2},
        {"op": "flatten"},
        {"op": "layer_norm", "weight": "8.weight", "bias": "8.bias"},
        {"op": "linear", "weight": "9.weight", "bias": "9.bias"},
        {"op": "tanh"},
        {"op": "log_softmax", "dim": -1},
    ]
    weights = {name: tensor for name, tensor in local.state_dict().items() if "num_batches" not in name}
    served = Served(compute, tmp_path / "cnn.safetensors", weights, {"layers": architecture})
    assert served.signature.outputs[0].shape == (-1, 10)
    x = torch.randn(6, 1, 28, 28)
    torch.testing.assert_close(served(x), local(x), rtol=1e-5, atol=1e-5)


def test_an_embedding_takes_whole_numbers(compute: ComputeProcesses, tmp_path: Path) -> None:
    local = nn.Sequential(nn.Embedding(20, 6), nn.Flatten(), nn.Linear(18, 3), nn.Softmax(-1)).requires_grad_(False)
    architecture = [
        {"op": "embedding", "weight": "0.weight"},
        {"op": "flatten"},
        {"op": "linear", "weight": "2.weight", "bias": "2.bias"},
        {"op": "softmax"},
    ]
    declared = [{"name": "words", "datatype": "INT64", "shape": [-1, 3]}]
    file = tmp_path / "words.safetensors"
    served = Served(compute, file, local.state_dict(), {"layers": architecture}, declared)
    x = torch.tensor([[0, 19, 3], [7, 7, 7]])
    torch.testing.assert_close(served(x), local(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(InferenceFailed):
        served(torch.tensor([[0, 20, 3]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_types_of_weights_run_too(compute: ComputeProcesses, tmp_path: Path, dtype: torch.dtype) -> None:
    local = nn.Linear(5, 3).to(dtype).requires_grad_(False)
    layers = [{"op": "linear", "weight": "weight", "bias": "bias"}]
    served = Served(compute, tmp_path / "one.safetensors", local.state_dict(), {"layers": layers})
    x = torch.randn(2, 5).to(dtype)
    torch.testing.assert_close(served(x), local(x))


def test_several_inputs_and_named_outputs_come_in_the_order_of_the_signature(
    compute: ComputeProcesses, tmp_path: Path
) -> None:
    declared = [{"name": name, "datatype": "FP32", "shape": [-1, 3]} for name in ("a", "b")]
    wanted = [{"name": name, "datatype": "FP32", "shape": [-1, 3]} for name in ("product", "sum")]
    architecture = {"name": "sum_and_product", "config": {}}
    weights = {"one": torch.ones(1)}
    for outputs, names in [(None, ("sum", "product")), (wanted, ("product", "sum"))]:
        served = Served(compute, tmp_path / "two.safetensors", weights, architecture, declared, outputs)
        assert tuple(spec.name for spec in served.signature.outputs) == names
        a, b = torch.randn(4, 3), torch.randn(4, 3)
        results = dict(zip(names, served.infer(a, b), strict=True))
        assert torch.equal(results["sum"], a + b)
        assert torch.equal(results["product"], a * b)


def test_an_empty_batch_has_an_empty_answer(compute: ComputeProcesses, tmp_path: Path) -> None:
    served, _ = mlp(compute, tmp_path)
    assert served(torch.empty(0, 8)).shape == (0, 4)


def test_a_large_request_arrives_whole(compute: ComputeProcesses, tmp_path: Path) -> None:
    served, local = mlp(compute, tmp_path, 1024, 8, 1024)
    x = torch.randn(8192, 1024)  # 32 MiB each way
    torch.testing.assert_close(served(x), local(x), rtol=1e-4, atol=1e-5)


# --- batches --------------------------------------------------------------------------------------------------------


def test_parallel_requests_share_executions_and_each_gets_its_own_rows(
    compute: ComputeProcesses, tmp_path: Path
) -> None:
    served, local = mlp(compute, tmp_path, 256, 1024, 256)
    served(torch.randn(1, 256))
    rows = torch.randn(64, 1, 256)
    before = compute.executions
    answers = together([lambda row=row: served(row) for row in rows])  # type: ignore[misc]
    assert 0 < compute.executions - before < 64
    for row, answer in zip(rows, answers, strict=True):
        torch.testing.assert_close(answer, local(row), rtol=1e-5, atol=1e-6)


def test_one_bad_row_hurts_its_caller_alone(compute: ComputeProcesses, tmp_path: Path) -> None:
    served = registered(compute, tmp_path, "fussy")
    values = [float(value) for value in range(40)]
    values[17] = -1.0
    answers = together([lambda value=value: served(torch.full((1, 2), value)) for value in values])  # type: ignore[misc]
    assert isinstance(answers[17], InferenceFailed)
    assert "secret" not in str(answers[17].body())
    rest = [float(answer[0, 0]) for number, answer in enumerate(answers) if number != 17]
    assert rest == [value for value in values if value >= 0]


def test_requests_of_different_lengths_are_not_mixed(compute: ComputeProcesses, tmp_path: Path) -> None:
    served = registered(compute, tmp_path, "fussy", width=-1)
    sent = [torch.rand(1 + number % 3, 1 + number % 5) for number in range(30)]
    answers = together([lambda one=one: served(one) for one in sent])  # type: ignore[misc]
    assert all(torch.equal(one, answer) for one, answer in zip(sent, answers, strict=True))


# --- limits ---------------------------------------------------------------------------------------------------------


def test_a_model_past_the_deadline_holds_up_no_other(compute: ComputeProcesses, tmp_path: Path) -> None:
    sleepy = registered(compute, tmp_path, "sleepy")
    served, _ = mlp(compute, tmp_path)
    served(torch.randn(1, 8))
    begun = time.monotonic()
    waiting = threading.Thread(target=lambda: together([lambda: sleepy(torch.full((1, 2), 2.0))]))
    waiting.start()
    until(lambda: compute.in_hand == 1)
    with pytest.raises(InferenceTimeout):
        sleepy(torch.zeros(1, 2), timeout=0.5)
    assert time.monotonic() - begun < 1.5
    served(torch.randn(1, 8), timeout=1.0)
    waiting.join()
    assert torch.equal(sleepy(torch.zeros(1, 2)), torch.zeros(1, 2))


@pytest.mark.parametrize("what", ["text", "shape", "dtype", "two", "rows"])
def test_what_is_not_in_the_signature_is_no_answer(compute: ComputeProcesses, tmp_path: Path, what: str) -> None:
    served = registered(compute, tmp_path, "wrong", {"what": what})
    with pytest.raises(InferenceFailed):
        served(torch.ones(3, 2))


def test_a_request_above_the_limit_is_refused(small: ComputeProcesses, tmp_path: Path) -> None:
    served, _ = mlp(small, tmp_path)
    with pytest.raises(InferenceTooLarge) as refused:
        served(torch.zeros(1024, 8))
    assert refused.value.data["limit"] == 4096


def test_an_answer_above_the_limit_is_refused(small: ComputeProcesses, tmp_path: Path) -> None:
    served, _ = mlp(small, tmp_path, 1, 2, 4096)
    with pytest.raises(InferenceFailed):
        served(torch.zeros(2, 1))
    assert served(torch.zeros(1, 1)).shape == (1, 4096)


def test_the_queue_of_one_model_is_bounded(small: ComputeProcesses, tmp_path: Path) -> None:
    sleepy = registered(small, tmp_path, "sleepy")
    served, _ = mlp(small, tmp_path)
    calls = [lambda: sleepy(torch.full((1, 2), 0.3)) for _ in range(24)]
    answers = together([*calls, lambda: served(torch.zeros(1, 8))])
    refused = [answer for answer in answers if isinstance(answer, QueueFull)]
    assert 1 <= len(refused) <= 8
    assert all(error.retry_after == 1 for error in refused)
    assert isinstance(answers[-1], torch.Tensor)
    assert small.in_hand == 0


def test_no_process_means_that_nothing_runs(tmp_path: Path, compute: ComputeProcesses) -> None:
    served, _ = mlp(compute, tmp_path)
    none = started(compute_processes=0)
    with pytest.raises(FormatNotRunnable):
        none.describe(served.model.file(), "safetensors", {"layers": MLP}, None, None, True)
    with pytest.raises(ComputeUnavailable) as refused:
        none.infer(served.model, [packed("INPUT__0", torch.zeros(1, 8))], 1.0)
    assert refused.value.retry_after
    assert none.state(served.key) == "unloaded"
    none.stop(0.0)


# --- memory ---------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_model_makes_room(small: ComputeProcesses, tmp_path: Path) -> None:
    models = [mlp(small, tmp_path, 500, 500, 1) for _ in range(3)]  # 1 MB each
    x = torch.randn(1, 500)
    for served, _ in (models[0], models[1], models[0], models[2]):
        served(x)
    states = [small.state(served.key) for served, _ in models]
    assert states == ["ready", "unloaded", "ready"]
    for served, local in models * 3:
        torch.testing.assert_close(served(x), local(x), rtol=1e-4, atol=1e-5)


def test_many_models_in_a_small_memory_lose_no_request(small: ComputeProcesses, tmp_path: Path) -> None:
    models = [mlp(small, tmp_path, 500, 500, 1) for _ in range(4)]
    x = torch.randn(1, 500)
    answers = together([lambda pair=models[n % 4]: (pair[0](x), pair[1](x)) for n in range(48)])  # type: ignore[misc]
    for answer in answers:
        assert not isinstance(answer, ModelNotReady) or answer.retry_after
        if not isinstance(answer, GridError):
            torch.testing.assert_close(*answer, rtol=1e-4, atol=1e-5)
    assert sum(isinstance(answer, GridError) for answer in answers) < 12


def test_a_model_above_the_memory_is_not_ready_and_says_why(small: ComputeProcesses, tmp_path: Path) -> None:
    served, _ = mlp(small, tmp_path, 1000, 700, 1)
    with pytest.raises(ModelNotReady) as refused:
        served(torch.zeros(1, 1000))
    assert "compute_memory" in refused.value.data["reason"]
    assert refused.value.retry_after
    assert small.state(served.key) == "failed"


def test_an_idle_model_is_unloaded_and_comes_back(pair: ComputeProcesses, tmp_path: Path) -> None:
    served, local = mlp(pair, tmp_path)
    x = torch.randn(1, 8)
    served(x)
    until(lambda: pair.state(served.key) == "unloaded")
    torch.testing.assert_close(served(x), local(x), rtol=1e-5, atol=1e-6)


def test_of_several_processes_each_model_has_one_and_the_work_is_shared(pair: ComputeProcesses, tmp_path: Path) -> None:
    sleepy, other = (registered(pair, tmp_path, "sleepy") for _ in range(2))
    until(lambda: not any(len(process.loads) for process in pair._pool.processes))
    together([lambda: sleepy(torch.full((1, 2), 0.3)), lambda: other(torch.full((1, 2), 0.3))])
    for _ in range(5):
        sleepy(torch.zeros(1, 2))
        other(torch.zeros(1, 2))
    assert [len(process.loads) for process in pair._pool.processes] == [1, 1]


def test_a_deleted_model_answers_nobody_any_more(compute: ComputeProcesses, tmp_path: Path) -> None:
    sleepy = registered(compute, tmp_path, "sleepy")
    sleepy(torch.zeros(1, 2))
    answers: list[Any] = []
    calls = [lambda: sleepy(torch.full((1, 2), 5.0)) for _ in range(3)]
    waiting = threading.Thread(target=lambda: answers.extend(together(calls)))
    waiting.start()
    until(lambda: compute.in_hand == 3)
    begun = time.monotonic()
    compute.forget(sleepy.key)
    waiting.join()
    assert time.monotonic() - begun < 4.0
    assert all(isinstance(answer, ModelNotFound) for answer in answers)
    assert compute.state(sleepy.key) == "unloaded"


def test_versions_are_swapped_under_load_without_a_failed_request(compute: ComputeProcesses, tmp_path: Path) -> None:
    versions = [mlp(compute, tmp_path) for _ in range(6)]
    current, done = [versions[0]], threading.Event()
    x = torch.randn(1, 8)

    def ask() -> int:
        count = 0
        while not done.is_set():
            served, local = current[0]
            torch.testing.assert_close(served(x), local(x), rtol=1e-4, atol=1e-5)
            count += 1
        return count

    with ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(ask) for _ in range(8)]
        for served, local in versions[1:]:
            served(x)
            current[0] = (served, local)
            until(lambda: compute.in_hand > 0)
        done.set()
        assert sum(one.result(LONG) for one in asking) > 0


# --- death ----------------------------------------------------------------------------------------------------------


def test_after_sigkill_there_is_a_result_or_a_503_and_the_next_request_works(mortal: Mortal, tmp_path: Path) -> None:
    compute = mortal.compute
    sleepy = registered(compute, tmp_path, "sleepy")
    sleepy(torch.zeros(1, 2))
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.extend(together([lambda: sleepy(torch.full((1, 2), 0.4))] * 4)))
    waiting.start()
    until(lambda: compute.in_hand == 4)
    before = compute.restarts
    os.kill(compute.pids[0], signal.SIGKILL)
    waiting.join(LONG)
    for answer in answers:
        assert isinstance(answer, torch.Tensor) or (answer.status == 503 and answer.retry_after)
    assert sum(isinstance(answer, torch.Tensor) for answer in answers) == 4  # asked again, once
    assert compute.restarts == before + 1
    assert torch.equal(sleepy(torch.zeros(1, 2)), torch.zeros(1, 2))


def test_a_model_that_kills_its_process_is_named_each_time_and_its_caller_gets_503(
    mortal: Mortal, tmp_path: Path
) -> None:
    deadly = registered(mortal.compute, tmp_path, "deadly")
    served, local = mlp(mortal.compute, tmp_path)
    served(torch.zeros(1, 8))
    with pytest.raises(ComputeUnavailable) as refused:
        deadly(torch.full((1, 2), -1.0))
    assert refused.value.retry_after
    until(lambda: mortal.strikes == [deadly.key] * 2)  # it was asked again, once
    x = torch.randn(2, 8)
    torch.testing.assert_close(served(x), local(x), rtol=1e-5, atol=1e-6)


def test_a_model_that_does_not_end_costs_its_process_and_a_strike(mortal: Mortal, tmp_path: Path) -> None:
    deadly = registered(mortal.compute, tmp_path, "deadly")
    deadly(torch.zeros(1, 2))
    first = mortal.compute.pids[0]
    with pytest.raises(InferenceTimeout):
        deadly(torch.full((1, 2), 1.0), timeout=0.5)
    until(lambda: mortal.strikes == [deadly.key])
    assert first not in mortal.compute.pids
    assert torch.equal(deadly(torch.zeros(1, 2)), torch.zeros(1, 2))


def test_a_process_that_says_nothing_is_ended_and_nobody_is_to_blame(
    mortal: Mortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = mortal.compute
    served, _ = mlp(compute, tmp_path)
    monkeypatch.setattr(compute._pool, "_check_max", 0.5)  # the longest that it may be busy
    before = compute.restarts
    os.kill(compute.pids[0], signal.SIGSTOP)
    with pytest.raises(InferenceTimeout):
        served(torch.zeros(1, 8), timeout=0.3)
    until(lambda: compute.restarts == before + 1)
    assert served(torch.zeros(1, 8)).shape == (1, 4)
    assert mortal.strikes == []


def test_a_request_without_time_does_not_make_its_process_look_dead(mortal: Mortal, tmp_path: Path) -> None:
    served, _ = mlp(mortal.compute, tmp_path)
    served(torch.zeros(1, 8))
    before = mortal.compute.pids
    with pytest.raises(InferenceTimeout):
        served(torch.zeros(1, 8), timeout=1e-6)
    (process,) = mortal.compute._pool.processes
    until(lambda: process.silent_since == 0.0)  # it was asked for a sign of life
    assert mortal.compute.pids == before


@pytest.fixture(scope="module")
def executable() -> Iterator[ComputeProcesses]:
    processes = started(executable_formats="torchscript,torch_export")
    yield processes
    processes.stop(1.0)


@pytest.mark.parametrize("format", ["torchscript", "torch_export"])
def test_a_format_with_code_runs_once_the_operator_allows_it(
    executable: ComputeProcesses, tmp_path: Path, format: str
) -> None:
    """In a process that could be confined; elsewhere it is refused still."""
    compute = executable
    local = nn.Linear(4, 3).eval().requires_grad_(False)
    file = tmp_path / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if format == "torchscript":
            torch.jit.save(torch.jit.trace(local, torch.zeros(2, 4)), str(file))
        else:
            shapes = {"input": {0: torch.export.Dim("batch")}}
            torch.export.save(
                torch.export.export(local, (torch.zeros(2, 4),), dynamic_shapes=shapes), str(file) + ".pt2"
            )
            file = file.with_suffix(".pt2")
    declared = [{"datatype": "FP32", "shape": [-1, 4]}]
    (process,) = compute._pool.wait_ready(time.monotonic() + LONG)
    if format not in process.formats:
        with pytest.raises(FormatNotRunnable):
            compute.describe(file, format, None, declared, None, True)
        pytest.skip("this kernel does not give what confines such a model")
    with pytest.raises(InvalidModel):
        compute.describe(file, format, None, None, None, True)
    signature = compute.describe(file, format, None, declared, None, True)
    assert signature.outputs[0].shape == (-1, 3)
    model = Runnable(f"{format}/1", format, file.stat().st_size, None, signature, lambda: file)
    x = torch.randn(5, 4)
    (answer,) = compute.infer(model, [packed("INPUT__0", x)], LONG)
    torch.testing.assert_close(unpacked(answer), local(x), rtol=1e-5, atol=1e-6)


def test_a_file_that_torch_cannot_load_is_refused_in_words_of_ours(compute: ComputeProcesses, tmp_path: Path) -> None:
    file = tmp_path / "bad.safetensors"
    for content in (b"", b"\x08\0\0\0\0\0\0\0{}", os.urandom(100)):
        file.write_bytes(content)
        with pytest.raises(InvalidModel) as refused:
            compute.describe(file, "safetensors", {"layers": MLP}, None, None, True)
        assert refused.value.data["reason"]


def test_formats_with_code_do_not_run_unless_the_operator_allows_them(
    compute: ComputeProcesses, tmp_path: Path
) -> None:
    file = tmp_path / "script.pt"
    file.write_bytes(b"PK")
    for format in ("torchscript", "torch_export", "opaque"):
        with pytest.raises(FormatNotRunnable):
            compute.describe(file, format, None, None, None, True)


NODE = f"""
import json, sys, threading, time
sys.path.insert(0, {str(ROOT)!r})
from array import array
from pathlib import Path
from grid_node.compute.client import ComputeProcesses
from grid_node.compute.port import Runnable
from grid_node.settings import Settings
from models_store.tensors import Signature, Tensor
compute = ComputeProcesses(Settings.load({{}}), print, {PLACES!r}, [Path({str(FOLDER)!r})])

def infer(model, rows, values):
    x = Tensor("INPUT__0", "FP32", (rows, len(values) // rows), array("f", values).tobytes())
    (answer,) = compute.infer(model, [x], 60.0)
    return array("f", bytes(answer.data)).tolist()

models = [
    Runnable(key, "safetensors", 1, architecture, Signature.of(signature), lambda file=file: Path(file))
    for key, file, architecture, signature in json.loads(sys.argv[1])
]
"""
"""A small node in a process of its own; `models` are those that it was started with."""


def as_argument(*models: Served) -> str:
    bodies = [(one.key, str(one.model.file()), one.model.architecture, one.signature.body()) for one in models]
    return json.dumps(bodies)


ENDLESS = """
infer(models[0], 1, [0.0, 0.0])
threading.Thread(target=infer, args=(models[0], 1, [1.0, 1.0]), daemon=True).start()
while not any(one.running(time.monotonic()) for one in compute._pool.processes):
    time.sleep(0.01)
print(compute.pids[0], flush=True)
time.sleep(600)
"""


def test_a_process_dies_with_the_node_whatever_it_is_doing(compute: ComputeProcesses, tmp_path: Path) -> None:
    deadly = registered(compute, tmp_path, "deadly")
    command = [sys.executable, "-c", NODE + ENDLESS, as_argument(deadly)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as node:
        assert node.stdout is not None
        process = psutil.Process(int(node.stdout.readline()))
        assert process.is_running()
        node.kill()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 10.0)


GREEN = """
gaps = [0.0]
def watch():
    while True:
        begun = time.monotonic()
        eventlet.sleep(0.01)
        gaps.append(time.monotonic() - begun)

mlp, sleepy = models
x, expected = json.loads(sys.stdin.read())
infer(mlp, 1, x)
infer(sleepy, 1, [0.0, 0.0])
eventlet.spawn(watch)
asked = [eventlet.spawn(infer, mlp, 1, x) for _ in range(64)] + [eventlet.spawn(infer, sleepy, 1, [0.5, 0.5])]
large = eventlet.spawn(infer, mlp, 1024, x * 1024)
for one in asked[:64]:
    assert all(abs(a - b) < 1e-4 for a, b in zip(one.wait(), expected, strict=True))
assert asked[64].wait() == [0.5, 0.5]
assert len(large.wait()) == 1024 * len(expected)
print(max(gaps))
compute.stop(1)
"""


def test_under_eventlet_waiting_callers_leave_the_hub_free(compute: ComputeProcesses, tmp_path: Path) -> None:
    served, local = mlp(compute, tmp_path, 64, 64, 256)
    sleepy = registered(compute, tmp_path, "sleepy")
    x = torch.randn(1, 64)
    green = "import eventlet\neventlet.monkey_patch()\n" + NODE + GREEN
    command = [sys.executable, "-W", "ignore", "-c", green, as_argument(served, sleepy)]
    given = json.dumps([x[0].tolist(), local(x)[0].tolist()]).encode()
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True, timeout=100)
    assert float(done.stdout) < 0.45  # the sleeping model alone takes 0.5 s
