"""A node whose operator lets code of models run: what it refuses, what it runs, and what hurts nobody else."""

import contextlib
import signal
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests import crafted, torch_models
from tests.contract.test_two_model_faces import Faces, assert_same, unique
from tests.nodes import METRICS_HEADERS, LiveNode, running_node, until
from tests.syft_files import IS_THERE, PYTHON

pytestmark = pytest.mark.filterwarnings("ignore")

INPUTS = [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]
TENSORS_MAX = 20
ROUNDS = 400_000.0
"""Of `Moody`: more than a second of work, so that a moment is long before its end."""


class Moody(torch.nn.Module):
    """Gives back what it gets. Below 0 it raises, at 2 it gives no tensor; above 2 it works that many rounds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor | None:
        most = float(x.max())
        if most < 0:
            raise ValueError("a secret of the model")
        if most == 2:
            return None
        for _ in range(int(most)):
            x = x + 0.0
        return x


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    formats = {"executable_formats": "torchscript,torch_export", "syft_python": PYTHON if IS_THERE else ""}
    limits = {"safetensors_tensors_max": TENSORS_MAX, "compute_threads": 1}
    with running_node(tmp_path_factory.mktemp("code"), **formats, **limits) as made:
        yield made


@pytest.fixture(scope="module")
def author(node: LiveNode) -> Iterator[Faces]:
    """Whoever may serve code."""
    faces = Faces(node.url, node.add_key("author", ("client", "models:code")))
    yield faces
    faces.close()


@pytest.fixture(scope="module")
def archives() -> tuple[bytes, bytes]:
    """An honest exported program, and `Moody`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_models.exported(), torch_models.scripted(Moody())


@pytest.fixture(scope="module")
def moody(author: Faces, archives: tuple[bytes, bytes]) -> str:
    """Its id. Skips where a process cannot be confined: such models are refused there."""
    payload = {"model_id": unique(), "model": archives[1], "format": "torchscript", "inputs": INPUTS}
    ack = author.event.call("/serve_model", {**payload, "allow_remote_inference": True})
    if ack.get("code") == "format_not_runnable":
        pytest.skip("this kernel does not give what confines a model with code")
    assert ack["success"], ack
    return payload["model_id"]


def predicted(faces: Faces, model_id: str, value: float) -> Any:
    return assert_same(faces.send("/run_inference", {"model_id": model_id, "data": [[value]]}), 200)["prediction"]


def infer(faces: Faces, model_id: str, value: float, **parameters: int) -> Any:
    one = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [value]}
    return faces.http.post(f"/v2/models/{model_id}/infer", json={"inputs": [one], "parameters": parameters})


# --- what is refused


def test_more_tensors_than_the_limit_are_refused(author: Faces) -> None:
    for count, status, code in ((TENSORS_MAX, 200, None), (TENSORS_MAX + 1, 422, "invalid_model")):
        model = crafted.safetensors({f"t{number}": ("U8", [1]) for number in range(count)}, bytes(count))
        ack, answer = author.serve({"model": model, "format": "safetensors"})
        assert (ack.get("status", 200), ack.get("code")) == (answer.status_code, answer.json().get("code"))
        assert (answer.status_code, answer.json().get("code")) == (status, code)


@pytest.mark.parametrize(
    "way", ["weight", "opaque", "custom", "size", "guard", "library", "extra", "old-weights", "operator"]
)
def test_a_crafted_archive_is_refused_before_torch_sees_it(
    author: Faces, archives: tuple[bytes, bytes], tmp_path: Path, way: str
) -> None:
    canary = tmp_path / "canary"
    model = crafted.changed(archives[0], crafted.attacks(canary, archives[0])[way])
    assert_same(author.serve({"model": model, "format": "torch_export"}), 422, "invalid_model")
    assert not canary.exists()


def test_code_takes_the_scope_besides_the_setting(node: LiveNode, archives: tuple[bytes, bytes]) -> None:
    keyed = Faces(node.url, node.add_key("no author"))
    try:
        for faces in (keyed, Faces(node.url)):
            both = faces.serve({"model": archives[1], "format": "torchscript", "inputs": INPUTS})
            assert_same(both, 422, "format_not_available")
    finally:
        keyed.close()
        faces.close()


# --- state dicts of syft


@pytest.mark.timeout(200)
def test_a_state_dict_of_syft_runs_and_comes_back_as_it_was(node: LiveNode, author: Faces, syft_files: Path) -> None:
    content, model_id = (syft_files / "state").read_bytes(), unique()
    linear = {"layers": [{"op": "linear", "weight": "weight", "bias": "bias"}]}
    payload = {"model_id": model_id, "model": content, "format": "syft-0.9.5", "architecture": linear}
    ack = author.event.call("/serve_model", {**payload, "allow_remote_inference": True, "allow_download": True}, 100)
    assert ack["success"], ack
    answer = assert_same(author.send("/run_inference", {"model_id": model_id, "data": [[1, 0, 0], [0, 0, 2]]}), 200)
    assert answer["prediction"] == [[1, 4], [5, 11]]
    assert author.event.call(f"/get_model/{model_id}") == {"serialized_model": content}
    assert author.http.get(f"/models/{model_id}/content").content == content
    known = [path for path in blobs(node) if path.stat().st_size == (syft_files / "state.safetensors").stat().st_size]
    assert any(same(path, syft_files / "state.safetensors") for path in known)
    loaded = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in web_processes(node))
    assert "syft" not in loaded
    assert "libtorch" not in loaded


def blobs(node: LiveNode) -> list[Path]:
    return list((node.data / "blobs").glob("??/??/*"))


def same(one: Path, other: Path) -> bool:
    """Equal names, types and values."""
    was, now = load_file(one), load_file(other)
    equal = all(tensor.dtype == now[name].dtype and torch.equal(tensor, now[name]) for name, tensor in was.items())
    return was.keys() == now.keys() and equal


# --- what a model does


def test_a_model_that_raises_tells_nothing_of_itself(author: Faces, moody: str) -> None:
    assert predicted(author, moody, 1.5) == [[1.5]]
    for bad in (-1, 2):
        ack = assert_same(author.send("/run_inference", {"model_id": moody, "data": [[bad]]}), 422, "inference_failed")
        assert not any(word in str(ack) for word in ("secret", "Traceback", "forward", "Moody"))
    assert infer(author, moody, -1).json()["code"] == "inference_failed"
    assert predicted(author, moody, 1) == [[1]]


def test_a_model_past_its_deadline_holds_up_no_other(author: Faces, moody: str, archives: tuple[bytes, bytes]) -> None:
    other = {"model_id": unique(), "model": archives[1], "format": "torchscript", "inputs": INPUTS}
    assert author.event.call("/serve_model", {**other, "allow_remote_inference": True})["success"]
    assert predicted(author, other["model_id"], 1) == [[1]]
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(infer, author, moody, 4 * ROUNDS, timeout=1_000_000)
        until(lambda: in_hand(author) > 0)
        assert author.event.call("/run_inference", {"model_id": other["model_id"], "data": [[1]]})["success"]
        late = slow.result(30)
    assert (late.status_code, late.json()["code"]) == (504, "inference_timeout")


def test_after_sigkill_there_is_a_result_or_a_503_and_the_next_request_works(
    node: LiveNode, author: Faces, moody: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(infer, author, moody, ROUNDS)
        until(lambda: in_hand(author) > 0)
        compute_process(node).send_signal(signal.SIGKILL)
        answer = asked.result(60)
    assert answer.status_code == 200 or (answer.status_code == 503 and answer.json()["retry_after"] >= 1)
    assert predicted(author, moody, 1) == [[1]]


def in_hand(faces: Faces) -> float:
    """Inferences that the node has not answered."""
    lines = faces.http.get("/metrics", headers=METRICS_HEADERS).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("grid_inferences_in_hand "))


def web_processes(node: LiveNode) -> list[int]:
    return [one.pid for one in psutil.Process(node.pid).children() if "gunicorn" in " ".join(one.cmdline())]


def compute_process(node: LiveNode) -> psutil.Process:
    found = []
    for child in psutil.Process(node.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [child] if any("models_store" in word for word in child.cmdline()) else []
    (process,) = found
    return process
