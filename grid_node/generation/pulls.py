"""A worker's request for work, while it waits for its answer."""

import threading
from dataclasses import dataclass, field
from typing import Any

from grid_node.errors import GridError


@dataclass(eq=False)
class Pull:
    """One worker's request for work. `strong` None: judged by its scores."""

    worker: str
    kinds: tuple[str, ...]
    formats: tuple[str, ...]
    max_parallel: int
    holding: frozenset[str]
    strong: bool | None = None
    fresh: bool = True
    patient: bool = True
    idle_since: float = 0.0
    answer: dict[str, Any] | None = None
    error: GridError | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def resolve(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.done.set()


def no_task(retry_after: int = 0, cooldown: dict[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    return {"success": True, "task": None, "retry_after": retry_after, "cooldown": cooldown, **extra}
