"""Messages of the raw WebSocket `/ws/generate/`: the public API protocol of the 404-GEN subnet (June 2024).

A client of that API runs on these models with only its import and URL changed. They describe the frames of
the plain protocol; what goes beyond it is sent to clients that ask for it, see `messages`.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, Field


class Auth(BaseModel):
    """First frame of the client."""

    api_key: str


class PromptData(BaseModel):
    """Second frame of the client."""

    prompt: str
    send_first_results: bool = False


class TaskStatus(StrEnum):
    """The three statuses that a client of the plain protocol knows."""

    STARTED = "started"
    FIRST_RESULTS = "first_results"
    BEST_RESULTS = "best_results"


class TaskResults(BaseModel):
    hotkey: str = Field(description="Identity of the worker.")
    assets: str | None = Field(default=None, description="The asset in standard base64.")
    score: float = Field(description="0 to 1.")


class MinerStatistics(BaseModel):
    """One worker's attempt; times in seconds since 1970, 0 and score 0 if nothing was submitted."""

    hotkey: str
    assign_time: int
    data_format: str
    score: float
    submit_time: int


class TaskStatistics(BaseModel):
    create_time: int = Field(description="Seconds since 1970.")
    miners: list[MinerStatistics] = Field(default_factory=list)


class TaskUpdate(BaseModel):
    """Every frame of the node."""

    status: TaskStatus
    results: TaskResults | None = None
    statistics: TaskStatistics | None = None
