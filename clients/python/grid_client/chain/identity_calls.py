"""An identity at the service: which subnet it is bound to, and in which of two ways it shows who it is.

A service since 2.0 tells the subnets of its identities and takes the token with each call. One before that answers 404
to the question; there a login gives the subnet and a session cookie, and no call has an Authorization header.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from grid_client.chain.exceptions import (
    PylonForbidden,
    PylonMisconfigured,
    PylonNetuidMismatch,
    PylonNotFound,
    PylonRequestException,
    PylonResponseException,
    PylonTimeoutException,
    PylonUnauthorized,
    TimeoutReason,
)
from grid_client.chain.exchange import PREFIX, Model, Pause, Request, Steps, hurried, parsed, segment
from grid_client.chain.requests import SetCommitmentBody, SetWeightsBody
from grid_client.chain.responses import (
    GenerateCertificateKeypairResponse,
    GetIdentitiesResponse,
    GetWeightsStatusResponse,
    IdentityLoginResponse,
    SetCommitmentResponse,
    SetWeightsResponse,
)
from grid_client.chain.subnet_calls import Asked
from grid_client.chain.types import IdentityName

FIRST_LOOK, LONGEST_LOOK = 0.25, 4.0
"""Seconds between two looks at a weights job; doubled after each."""
PASSING = frozenset({429, 500, 502, 503})
"""Statuses of a look that a later look may not have."""


@dataclass(frozen=True)
class Standing:
    """What the service said of the identity; by_session: the cookie shows who it is, not the token."""

    netuid: int
    by_session: bool


class IdentityCalls:
    """Threads may share it: what it knows is replaced as a whole."""

    def __init__(self, name: IdentityName, token: str) -> None:
        self.name = name
        self._token = token
        self.standing: Standing | None = None

    def introduce(self, stale: Standing | None = None) -> Steps[Standing]:
        """Find out where the identity stands, unless somebody else has since `stale`."""
        if self.standing is None or self.standing is stale:
            if self.standing is None or not self.standing.by_session:
                self.standing = yield from self._looked_up()
            else:
                self.standing = yield from self._logged_in()
        return self.standing

    def ask(self, asked: Asked[Model]) -> Steps[Model]:
        """One call. After a move to another subnet, or the end of a session, it is made once more."""
        request, model = asked
        standing = yield from self.introduce()
        try:
            answer = yield self._finished(request, standing)
        except PylonNetuidMismatch:
            pass
        except (PylonUnauthorized, PylonForbidden):
            if not standing.by_session:
                raise
        else:
            return parsed(answer, model)
        standing = yield from self.introduce(standing)
        answer = yield self._finished(request, standing)
        return parsed(answer, model)

    def wait_for_weights(self, seconds: float, clock: Callable[[], float]) -> Steps[GetWeightsStatusResponse]:
        """Look until the newest job is over. Raises PylonTimeoutException after `seconds`, with what was seen last."""
        deadline, pause, seen = clock() + seconds, FIRST_LOOK, "nothing was heard of it"
        while (left := deadline - clock()) > 0:
            try:
                status = yield from hurried(self.ask(weights_status()), left)
                if status.is_over:
                    return status
                seen = f"it is {status.status}" + (f" ({status.last_error})" if status.last_error else "")
            except (PylonRequestException, PylonResponseException) as error:
                if isinstance(error, PylonResponseException) and error.status_code not in PASSING:
                    raise
                seen = str(error)
            yield Pause(max(0.0, min(pause, deadline - clock())))
            pause = min(pause * 2, LONGEST_LOOK)
        raise PylonTimeoutException(TimeoutReason.JOB, seconds, seen)

    def _looked_up(self) -> Steps[Standing]:
        try:
            answer = yield Request("GET", f"{PREFIX}/identities")
        except PylonNotFound:
            return (yield from self._logged_in())
        netuid = parsed(answer, GetIdentitiesResponse).identities.get(self.name)
        if netuid is None:
            raise PylonMisconfigured(f"The service has no identity {self.name!r}.")
        return Standing(netuid, by_session=False)

    def _logged_in(self) -> Steps[Standing]:
        body = {"token": self._token, "identity_name": self.name}
        answer = yield Request("POST", f"{PREFIX}/login/identity/{segment(self.name)}", body, in_session=True)
        return Standing(parsed(answer, IdentityLoginResponse).netuid, by_session=True)

    def _finished(self, request: Request, standing: Standing) -> Request:
        path = f"{PREFIX}/identity/{segment(self.name)}/subnet/{segment(standing.netuid)}{request.path}"
        if standing.by_session:
            return replace(request, path=path, in_session=True)
        return replace(request, path=path, token=self._token)


def put_weights(weights: object) -> Asked[SetWeightsResponse]:
    body = SetWeightsBody.model_validate({"weights": weights})
    return Request("PUT", "/weights", body.model_dump()), SetWeightsResponse


def set_commitment(commitment: bytes | str) -> Asked[SetCommitmentResponse]:
    body = SetCommitmentBody.model_validate({"commitment": commitment})
    return Request("POST", "/commitments", body.model_dump()), SetCommitmentResponse


def generate_certificate(algorithm: int) -> Asked[GenerateCertificateKeypairResponse]:
    return Request("POST", "/certificates/self", {"algorithm": int(algorithm)}), GenerateCertificateKeypairResponse


def weights_status() -> Asked[GetWeightsStatusResponse]:
    return Request("GET", "/weights/status"), GetWeightsStatusResponse
