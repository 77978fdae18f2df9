"""Who may use the routes of runners and of their clients: keys by header, `X-API-KEY` before Bearer before Basic.

`Token` counts as Bearer: older clients of Replicate say so.
"""

import contextlib
from collections.abc import Iterator

from flask import Request

from grid_node.adapters.runners import RunnerAccess
from grid_node.errors import StoreUnavailable, TryAgain
from grid_node.http.auth import address_of
from grid_node.runners.ports import RunnerCaller


class RunnerDoor:
    """Identifies requests by their headers alone: before any byte of a body is read."""

    def __init__(self, access: RunnerAccess) -> None:
        self._access = access

    def runner(self, request: Request, *, basic: bool = False) -> RunnerCaller:
        """A key with scope `runner`. `basic`: a worker's upload URL can carry its key in no other way.

        Raises MissingKey, RunnerKeyInvalid, TooManyBadKeys, WrongScope.
        """
        return self._access.by_key(key_of(request, basic=basic), address_of(request), "runner")

    def client(self, request: Request) -> RunnerCaller:
        """A key with scope `client`; raises the same."""
        return self._access.by_key(key_of(request), address_of(request), "client")


def key_of(request: Request, *, basic: bool = False) -> str | None:
    """The API key that a request shows, None if it shows none."""
    given = request.headers.get("X-API-Key")
    if given:
        return given
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token") and credentials:
        return credentials.strip()
    authorization = request.authorization
    if basic and authorization is not None and authorization.type == "basic":
        return authorization.password
    return None


@contextlib.contextmanager
def transient() -> Iterator[None]:
    """A database that is locked or away is TryAgain to a worker: of all refusals only that makes it send again."""
    try:
        yield
    except StoreUnavailable as error:
        raise TryAgain(retry_after=error.retry_after or 1) from error
