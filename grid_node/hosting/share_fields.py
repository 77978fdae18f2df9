"""What a request may say about shares: the rules that need no bytes, no rows and no peers."""

from typing import NoReturn

from grid_client.holders import checked_address

from grid_node.errors import InvalidPayload, MissingKey
from grid_node.hosting.placement import Place
from grid_node.hosting.rights import ModelCaller
from grid_node.hosting.schemas import ServeRequest


def check_fields(caller: ModelCaller, request: ServeRequest, has_bytes: bool) -> None:
    """Raises InvalidPayload, MissingKey."""
    if request.mpc or request.shares is not None:
        _check_set(request, has_bytes)
    else:
        _check_alone(request)
    if request.format == "share":
        _check_kept(caller, request)


def places_of(request: ServeRequest) -> list[Place]:
    """Raises InvalidPayload."""
    return [Place(one["worker"], _address(one["address"], "shares")) for one in request.shares or ()]


def _check_set(request: ServeRequest, has_bytes: bool) -> None:
    """An encrypted model: `mpc` and `shares` go together, and there is nothing else to give or to run."""
    if not request.mpc:
        _refuse("shares", "are for mpc models")
    if request.shares is None:
        _refuse("mpc", "needs shares")
    for flag in ("allow_download", "allow_remote_inference"):
        if getattr(request, flag):
            _refuse(flag, "is not for mpc models: this node has no plaintext")
    if request.format not in (None, "safetensors"):
        _refuse("format", "must be safetensors for mpc models")
    if request.share_token_sha256 is not None:
        _refuse("share_token_sha256", "is for format share")
    _check_workers(request)
    _check_origin(request, has_bytes)


def _check_workers(request: ServeRequest) -> None:
    """Raises InvalidPayload."""
    workers = [place.worker for place in places_of(request)]
    if len(set(workers)) != len(workers):
        _refuse("shares", "must name different workers")
    if request.crypto_provider is not None:
        _address(request.crypto_provider["address"], "crypto_provider")
        if request.crypto_provider["id"] in workers:
            _refuse("crypto_provider", "must not be one of the workers")


def _check_origin(request: ServeRequest, has_bytes: bool) -> None:
    """What the client tells of its own shares, and what it asks of ours."""
    if has_bytes and request.set is not None:
        _refuse("set", "is only for shares that the client placed")
    if has_bytes and any(one["sha256"] is not None for one in request.shares or ()):
        _refuse("shares", "have sha256 only if the client placed them")
    if not has_bytes and request.share_token is not None:
        _refuse("share_token", "is only for shares that the node places")
    if not has_bytes and request.sha256 is not None:
        _refuse("sha256", "is of bytes, and there are none")


def _check_alone(request: ServeRequest) -> None:
    for field in ("set", "crypto_provider", "share_token"):
        if getattr(request, field) is not None:
            _refuse(field, "is for mpc models")


def _check_kept(caller: ModelCaller, request: ServeRequest) -> None:
    """A share that this node is to hold. Raises InvalidPayload, MissingKey."""
    if caller.is_anonymous:
        raise MissingKey()
    if request.version is not None:
        _refuse("version", "is not for shares: a share never changes")


def _address(text: str, field: str) -> str:
    try:
        return checked_address(text)
    except ValueError as error:
        raise invalid(field, str(error)) from None


def _refuse(field: str, problem: str) -> NoReturn:
    raise invalid(field, problem)


def invalid(field: str, problem: str) -> InvalidPayload:
    return InvalidPayload(fields={field: [problem]})
