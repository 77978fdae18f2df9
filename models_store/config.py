"""What the node tells a process that runs models when it starts it. No torch here: both sides import this module."""

import dataclasses
import json
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Config:
    """`socket` and `board` are inherited descriptors; `factories` maps names of architectures to `module:function`,
    imported from `paths` and from the installed packages. Sizes are in bytes, times in seconds."""

    socket: int
    board: int
    memory: int
    """Of loaded models together."""
    threads: int
    request_max: int
    answer_max: int
    rows_max: int
    delay: float
    idle: float
    formats: Sequence[str] = ()
    """With code of their own; they run only where the process could be confined tightly."""
    factories: Mapping[str, str] = dataclasses.field(default_factory=dict)
    paths: Sequence[str] = ()
    device: str = "cpu"

    def as_text(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of(cls, text: str) -> "Config":
        return cls(**json.loads(text))
