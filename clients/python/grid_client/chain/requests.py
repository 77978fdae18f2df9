"""Bodies that the client sends. What cannot be one raises pydantic's ValidationError, a ValueError."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_serializer, field_validator

from grid_client.chain.types import CommitmentDataBytes, CommitmentDataHex, Hotkey, Weight


class PylonBody(BaseModel):
    """Base of all."""

    model_config = ConfigDict(allow_inf_nan=False)


class SetWeightsBody(PylonBody):
    weights: dict[Hotkey, Weight]

    @field_validator("weights")
    @classmethod
    def _not_empty(cls, weights: dict[Hotkey, Weight]) -> dict[Hotkey, Weight]:
        if not weights:
            raise ValueError("No weights provided")
        return weights


class SetCommitmentBody(PylonBody):
    """commitment: bytes, or hex digits with or without `0x`."""

    commitment: CommitmentDataBytes

    @field_validator("commitment", mode="before")
    @classmethod
    def _from_digits(cls, commitment: Any) -> Any:
        return CommitmentDataBytes.fromhex(commitment) if isinstance(commitment, str) else commitment

    @field_serializer("commitment")
    def _as_digits(self, commitment: CommitmentDataBytes) -> CommitmentDataHex:
        return commitment.hex()
