"""A result that is too large for its row, while others send the same bytes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from grid_node.blobs.local import LocalBlobs
from grid_node.generation.work import Work, WorkerIdentity

RESULT = bytes(10_000)


class Leases:
    """Takes a result in while somebody else, who was refused equal bytes, has them buried."""

    def __init__(self, blobs: LocalBlobs) -> None:
        self.blobs = blobs

    def expected(self, _worker: str, _lease_id: str) -> Any:
        return None, SimpleNamespace(id="t1")

    def kind_of(self, _task: Any) -> Any:
        return SimpleNamespace(max_bytes=len(RESULT))

    def submit(self, submission: Any) -> dict[str, Any]:
        self.blobs.bury(submission.actual, lambda: False)
        return {"state": "scoring", "sha256": submission.actual}


def test_a_result_is_stored_although_equal_bytes_were_buried_before_it_was_referred_to(tmp_path: Path) -> None:
    blobs: Any = LocalBlobs(tmp_path, lambda function, *args: function(*args))
    leases: Any = Leases(blobs)
    settings: Any = SimpleNamespace(scoring_max_bytes=len(RESULT))
    signatures: Any = SimpleNamespace(valid=lambda *_: True)
    nobody: Any = None
    work = Work(nobody, nobody, settings, nobody, leases, nobody, blobs, nobody, nobody, signatures, {})
    given = {"lease_id": "l1", "task_id": None, "format": "glb", "sha256": None, "signature": None, "wait_s": 0}
    answer = work.submit(WorkerIdentity("w", None, "key", (), (), 1), given, RESULT)
    assert blobs.read_checked(answer["sha256"], len(RESULT)) == RESULT
