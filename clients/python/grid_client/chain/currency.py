"""Amounts of a chain: whole tokens as floats, their smallest unit (rao) as whole numbers."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

RAO_PER_TOKEN = 1_000_000_000


class Token(StrEnum):
    TAO = "tao"
    ALPHA = "alpha"


Alpha = Literal[Token.ALPHA]
Tao = Literal[Token.TAO]
TokenType = TypeVar("TokenType", bound=Token)


class Currency(float, Generic[TokenType]):
    """Whole tokens of one kind."""

    @classmethod
    def from_rao(cls, rao: int) -> Self:
        return cls(rao / RAO_PER_TOKEN)

    def as_rao(self) -> CurrencyRao[TokenType]:
        """To the nearest rao."""
        return CurrencyRao[TokenType](round(self * RAO_PER_TOKEN))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, handler(float))


class CurrencyRao(int, Generic[TokenType]):
    """The same in rao, 10⁻⁹ of a token."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, handler(int))
