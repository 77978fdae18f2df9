"""What the node sends over Socket.IO and HTTP, as far as this package reads it. Unknown fields are kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grid_client.errors import GridError

TERMINAL = frozenset({"best_results", "failed", "cancelled"})


class Message(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    @classmethod
    def read(cls, body: object) -> Self:
        """Raises GridError `bad_answer` when the node sent something else."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors()[:5])
            raise GridError("bad_answer", f"the node sent no valid {cls.__name__}: {fields}") from None


class Result(Message):
    n: int
    hotkey: str
    score: float
    format: str
    size: int
    sha256: str
    url: str | None = None
    preview_url: str | None = None
    components: dict[str, Any] = Field(default_factory=dict)
    reasons: list[str] = Field(default_factory=list)


class Update(Message):
    """One step of a task; `seq` starts at 1 and has no gaps."""

    task_id: str
    seq: int
    status: str
    at: str | None = None
    results: Result | None = None
    statistics: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL


class Task(Message):
    id: str
    status: str
    seq: int
    kind: str = "text_to_3d"
    position: int | None = None
    workers_available: int | None = None
    created_at: datetime | None = None
    deadline: datetime | None = None


class Lease(Message):
    """A task handed to this worker (field `task` of a pull's answer)."""

    task_id: str
    lease_id: str
    kind: str
    prompt: str
    seed: int | None = None
    formats: list[str] = Field(min_length=1)
    max_bytes: int = 134_217_728
    renew_every_s: float = Field(default=20.0, gt=0, le=3600)
    node_hotkey: str | None = None
