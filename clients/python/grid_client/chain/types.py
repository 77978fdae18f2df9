"""Names for what a chain's numbers and texts mean, so that a type checker tells them apart."""

from __future__ import annotations

from typing import Any, NewType, Self, SupportsIndex

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from grid_client.chain.currency import Alpha, Currency, CurrencyRao, Tao

Hotkey = NewType("Hotkey", str)
Coldkey = NewType("Coldkey", str)
HotkeyName = NewType("HotkeyName", str)
WalletName = NewType("WalletName", str)
IdentityName = NewType("IdentityName", str)
PylonAuthToken = NewType("PylonAuthToken", str)
PublicKey = NewType("PublicKey", str)
PrivateKey = NewType("PrivateKey", str)

NetUid = NewType("NetUid", int)
NeuronUid = NewType("NeuronUid", int)
Port = NewType("Port", int)
BittensorNetwork = NewType("BittensorNetwork", str)
ArchiveBlocksCutoff = NewType("ArchiveBlocksCutoff", int)

BlockHash = NewType("BlockHash", str)
BlockNumber = NewType("BlockNumber", int)
Timestamp = NewType("Timestamp", int)
Tempo = NewType("Tempo", int)
RevealRound = NewType("RevealRound", int)
ExtrinsicIndex = NewType("ExtrinsicIndex", int)
ExtrinsicHash = NewType("ExtrinsicHash", str)
ExtrinsicLength = NewType("ExtrinsicLength", int)

Weight = NewType("Weight", float)
MaxWeightsLimit = NewType("MaxWeightsLimit", int)
Rank = NewType("Rank", float)
Incentive = NewType("Incentive", float)
Consensus = NewType("Consensus", float)
Trust = NewType("Trust", float)
ValidatorTrust = NewType("ValidatorTrust", float)
Dividends = NewType("Dividends", float)
PruningScore = NewType("PruningScore", int)
NeuronActive = NewType("NeuronActive", bool)
SubnetActive = NewType("SubnetActive", bool)
ValidatorPermit = NewType("ValidatorPermit", bool)

Stake = NewType("Stake", float)
Emission = NewType("Emission", Currency[Alpha])
EmissionRao = NewType("EmissionRao", CurrencyRao[Alpha])
AlphaStake = NewType("AlphaStake", Currency[Alpha])
AlphaStakeRao = NewType("AlphaStakeRao", CurrencyRao[Alpha])
TaoStake = NewType("TaoStake", Currency[Tao])
TaoStakeRao = NewType("TaoStakeRao", CurrencyRao[Tao])
TotalStake = NewType("TotalStake", Currency[Alpha])
TotalStakeRao = NewType("TotalStakeRao", CurrencyRao[Alpha])

HEX = "0x"


class CommitmentDataHex(str):
    """Bytes of a commitment as hex digits; always begins with `0x`."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        return super().__new__(cls, value if value.startswith(HEX) else HEX + value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


class CommitmentDataBytes(bytes):
    """The bytes themselves."""

    def hex(self, sep: str | bytes = "", bytes_per_sep: SupportsIndex = 1) -> CommitmentDataHex:
        return CommitmentDataHex(super().hex(sep, bytes_per_sep) if sep else super().hex())

    @classmethod
    def fromhex(cls, value: str) -> Self:
        """Of digits with or without `0x`. Raises ValueError for anything else."""
        return cls(bytes.fromhex(value.removeprefix(HEX)))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.bytes_schema(min_length=1))
