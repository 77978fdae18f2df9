"""The published tritonclient[http], unmodified, against a running node."""

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest
import requests
import torch
from safetensors.torch import save

from tests.nodes import ROOT, LiveNode

SCRIPT = Path(__file__).with_name("tritonclient_calls.py")
PYTHON = Path(os.environ.get("GRID_TEST_TRITON_PYTHON") or ROOT / ".venv-triton" / "bin" / "python")
ROWS = [[0.5, -1.0, 2.0, 0.25], [1.0, 2.0, -3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]
MLP = {
    "layers": [
        {"op": "linear", "weight": "0.weight", "bias": "0.bias"},
        {"op": "relu"},
        {"op": "linear", "weight": "2.weight", "bias": "2.bias"},
    ]
}
WORDS = {"layers": [{"op": "embedding", "weight": "weight"}]}


def mlp(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


OLD, NEW = mlp(1), mlp(2)
EMBEDDING = torch.arange(12, dtype=torch.float32).reshape(4, 3)
INPUTS = [{"name": "INPUT__0", "datatype": "FP16", "shape": [-1, 4]}]


def serve(node, model_id, weights, architecture, allowed=True, **fields):
    body = {"model_id": model_id, "model": base64.b64encode(save(weights)).decode(), "encoding": "base64", **fields}
    body |= {"architecture": architecture, "allow_remote_inference": allowed}
    answer = requests.post(f"{node.url}/serve_model", json=body, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each call of the script returned."""
    if not PYTHON.exists():
        pytest.skip("no environment with tritonclient (GRID_TEST_TRITON_PYTHON)")
    node = LiveNode(tmp_path_factory.mktemp("triton"), scoring_processes=0)
    node.start()
    try:
        serve(node, "mlp", OLD.state_dict(), MLP)
        serve(node, "mlp", NEW.state_dict(), MLP, version="new")
        serve(node, "shut", OLD.state_dict(), MLP, allowed=False)
        serve(node, "words", {"weight": EMBEDDING}, WORDS)
        serve(node, "half", {name: value.half() for name, value in NEW.state_dict().items()}, MLP, inputs=INPUTS)
        yield called(node)
    finally:
        node.discard()


def called(node):
    command = [str(PYTHON), "-W", "ignore", str(SCRIPT), f"127.0.0.1:{node.port}"]
    done = subprocess.run(command, check=False, input=json.dumps(ROWS), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr + node.log_text()
    return json.loads(done.stdout)


def expected(model=NEW, rows=ROWS):
    with torch.inference_mode():
        return model(torch.tensor(rows)).tolist()


def close(values, wanted, rel=1e-5):
    return [list(row) for row in values] == [pytest.approx(row, rel=rel, abs=1e-6) for row in wanted]


def refused(result, *words):
    return all(word in result["error"] for word in words)


def test_the_server_is_live_and_ready_and_says_what_it_is(results):
    assert results["live"] is True
    assert results["ready"] is True
    assert results["server"]["extensions"] == ["binary_tensor_data"]


def test_a_model_is_ready_and_described(results):
    assert [results[f"ready {name}"] for name in ("mlp", "shut", "none")] == [True, False, False]
    assert [results[f"ready {version}"] for version in ("1", "2", "9")] == [True, True, False]
    assert results["metadata mlp"] == {
        "name": "mlp",
        "versions": ["1", "2"],
        "platform": "pytorch_safetensors",
        "inputs": [{"name": "INPUT__0", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "OUTPUT__0", "datatype": "FP32", "shape": [-1, 2]}],
    }


def test_the_index_lists_the_models_that_may_be_run(results):
    found = [(one["name"], one["version"], one["state"]) for one in results["index"]]
    assert found == [("mlp", "1", "READY"), ("mlp", "2", "READY"), ("words", "1", "READY"), ("half", "1", "READY")]


@pytest.mark.parametrize(
    "call",
    ["infer mlp", "infer 2", "json", "json in, binary out", "gzip", "gzip json", "deflate", "deflate json", "priority"],
)
def test_the_newest_version_answers_like_the_local_module(results, call):
    assert close(results[call]["values"], expected()), results[call]
    assert results[call]["answer"]["model_version"] == "2"


def test_an_older_version_is_another_model(results):
    assert close(results["infer 1"]["values"], expected(OLD))
    assert refused(results["infer 9"], "Model not found.")


def test_the_id_is_echoed(results):
    assert results["json"]["answer"]["id"] == "7"
    assert "id" not in results["infer mlp"]["answer"]


def test_binary_and_json_are_what_was_asked_for(results):
    assert "data" in results["json"]["answer"]["outputs"][0]
    for call in ("infer mlp", "json in, binary out", "gzip"):
        assert results[call]["answer"]["outputs"][0]["parameters"] == {"binary_data_size": 24}


def test_requests_at_the_same_time_get_each_their_own_rows(results):
    wanted = [expected(rows=[ROWS[number % len(ROWS)]]) for number in range(16)]
    assert all(close(one["values"], rows) for one, rows in zip(results["async"], wanted, strict=True))


@pytest.mark.parametrize("call", ["empty", "empty json"])
def test_an_empty_batch_has_an_empty_answer(results, call):
    assert results[call]["values"] == []
    assert results[call]["answer"]["outputs"][0]["shape"] == [0, 2]


def test_other_datatypes_go_through(results):
    assert results["numbers"]["values"] == [[EMBEDDING[0].tolist(), EMBEDDING[2].tolist()]]
    for call in ("halves", "halves json"):
        assert close(results[call]["values"], expected(), rel=1e-2), results[call]


def test_an_unknown_and_a_refused_model_are_told_in_our_words(results):
    assert results["infer none"] == results["metadata none"] == {"error": "Model not found.", "status": "404"}
    assert results["infer shut"]["error"] == "You're not allowed to run inference on this model."
    assert results["infer shut"]["status"] == "403"


def test_what_does_not_fit_is_refused_by_its_name(results):
    assert refused(results["other input"], "input")
    assert refused(results["other shape"], "input INPUT__0", "shape")
    assert refused(results["other type"], "input INPUT__0", "FP64")
    assert refused(results["other output"], "output x")
    assert refused(results["text"], "input INPUT__0", "datatype")
    assert refused(results["classes"], "classification")
    assert refused(results["sequence"], "sequence_id")


def test_a_timeout_of_the_request_is_kept(results):
    assert results["too soon"]["status"] == "504"
