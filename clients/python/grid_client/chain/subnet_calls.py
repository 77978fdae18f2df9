"""Requests about one subnet, which open access and identities have in common, and about single blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from grid_client.chain.exchange import PREFIX, Model, Request, Steps, parsed, segment
from grid_client.chain.responses import (
    GetCertificateResponse,
    GetCertificatesResponse,
    GetCommitmentResponse,
    GetCommitmentsResponse,
    GetExtrinsicResponse,
    GetLatestBlockInfoResponse,
    GetNeuronsResponse,
    GetValidatorsResponse,
)

Asked = tuple[Request, type[Model]]
"""A request, and what its answer is."""


def neurons(block: int | str = "latest") -> Asked[GetNeuronsResponse]:
    return _get(f"/block/{segment(block)}/neurons"), GetNeuronsResponse


def validators(block: int | str = "latest") -> Asked[GetValidatorsResponse]:
    return _get(f"/block/{segment(block)}/validators"), GetValidatorsResponse


def commitments() -> Asked[GetCommitmentsResponse]:
    return _get("/block/latest/commitments"), GetCommitmentsResponse


def commitment(hotkey: str) -> Asked[GetCommitmentResponse]:
    return _get(f"/block/latest/commitments/{segment(hotkey)}"), GetCommitmentResponse


def certificates() -> Asked[GetCertificatesResponse]:
    return _get("/block/latest/certificates"), GetCertificatesResponse


def certificate(hotkey: str) -> Asked[GetCertificateResponse]:
    return _get(f"/block/latest/certificates/{segment(hotkey)}"), GetCertificateResponse


def latest_block() -> Asked[GetLatestBlockInfoResponse]:
    return _get(f"{PREFIX}/block/latest"), GetLatestBlockInfoResponse


def extrinsic(block: int, index: int) -> Asked[GetExtrinsicResponse]:
    return _get(f"{PREFIX}/block/{segment(block)}/extrinsic/{segment(index)}"), GetExtrinsicResponse


def asking(asked: Asked[Model], finished: Callable[[Request], Request]) -> Steps[Model]:
    """One exchange."""
    request, model = asked
    answer = yield finished(request)
    return parsed(answer, model)


def openly(token: str, netuid: int | None = None) -> Callable[[Request], Request]:
    """What makes a request one of open access: about a subnet, or about a block."""
    below = "" if netuid is None else f"{PREFIX}/subnet/{segment(netuid)}"

    def finished(request: Request) -> Request:
        return replace(request, path=below + request.path, token=token)

    return finished


def _get(path: str, **fields: Any) -> Request:
    return Request("GET", path, **fields)
