"""The check of a new model where no process is there to make it."""

from pathlib import Path

import pytest

from grid_node.compute.client import ComputeProcesses
from grid_node.errors import ComputeUnavailable, InferenceTimeout
from grid_node.settings import Settings


def test_a_check_that_finds_no_process_in_time_is_no_inference_that_took_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(_deadline: float) -> None:
        raise InferenceTimeout

    compute = ComputeProcesses(Settings.load({}, data_dir=tmp_path), lambda _key: None, {})
    monkeypatch.setattr(compute._pool, "wait_ready", late)
    with pytest.raises(ComputeUnavailable) as refused:
        compute.describe(tmp_path / "model", "safetensors", {"layers": []}, None, None, True)
    assert refused.value.retry_after
