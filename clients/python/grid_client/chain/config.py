"""Where the service is, what opens it, and how long and how often to try."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from tenacity import AsyncRetrying, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

from grid_client.chain.exceptions import PylonRequestException
from grid_client.chain.types import IdentityName, PylonAuthToken

RetryT = TypeVar("RetryT", Retrying, AsyncRetrying)

PAUSES = wait_exponential(multiplier=0.1) + wait_random(0, 0.2)
"""Seconds: 0.1, 0.2, 0.4, ... and as much as 0.2 more."""
DEFAULT_RETRIES = Retrying(
    wait=PAUSES,
    stop=stop_after_attempt(3),
    retry=retry_if_exception_type(PylonRequestException),
)
ASYNC_DEFAULT_RETRIES = AsyncRetrying(
    wait=PAUSES,
    stop=stop_after_attempt(3),
    retry=retry_if_exception_type(PylonRequestException),
)


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PylonTimeout(BaseModel):
    """Seconds to connect, to wait for an answer, to send a request, to wait for a free connection.

    The service is told `read` and answers 504 when it cannot keep it.
    """

    connect: Seconds = 5.0
    read: Seconds = 60.0
    write: Seconds = 5.0
    pool: Seconds = 5.0


class BaseConfig(BaseModel, Generic[RetryT]):
    """address: URL of the service; open_access_token: empty for a service that is open to all, None for no open access;
    identity_name and identity_token: both or none; retry: one of tenacity's.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, hide_input_in_errors=True)

    address: str
    identity_name: IdentityName | None = None
    identity_token: PylonAuthToken | None = Field(None, repr=False)
    open_access_token: PylonAuthToken | None = Field(None, repr=False)
    retry: RetryT
    timeout: PylonTimeout = PylonTimeout()

    @field_validator("address")
    @classmethod
    def _is_a_url(cls, address: str) -> str:
        if not _is_http_url(address):
            raise ValueError("The address must be an http:// or https:// URL.")
        return address.rstrip("/")

    @field_validator("identity_token", "open_access_token")
    @classmethod
    def _fits_a_header(cls, token: str | None) -> str | None:
        if token and not token.isprintable():
            raise ValueError("A token must not contain line breaks or control characters.")
        return token

    @model_validator(mode="after")
    def _identity_is_whole(self) -> BaseConfig[RetryT]:
        if bool(self.identity_name) != bool(self.identity_token):
            raise ValueError("Identity name must be provided in pair with identity token.")
        return self

    def model_post_init(self, context: Any) -> None:
        self.retry = self.retry.copy(reraise=True)


class Config(BaseConfig[Retrying]):
    """Of a `PylonClient`."""

    retry: Retrying = DEFAULT_RETRIES


class AsyncConfig(BaseConfig[AsyncRetrying]):
    """Of an `AsyncPylonClient`."""

    retry: AsyncRetrying = ASYNC_DEFAULT_RETRIES


def _is_http_url(address: str) -> bool:
    try:
        parts, _ = urlsplit(address), httpx.URL(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        return False
