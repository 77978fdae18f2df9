"""What becomes of a call inside the chain's process, in the words of the API."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from grid_node.chain.frames import Answer
from grid_node.chain.ports import BlockUnknown, NodeUnreachable, SubnetUnknown, WriteRefused, WriteUncertain
from grid_node.errors import (
    ChainError,
    ChainFault,
    ChainNotFound,
    ChainUnreachable,
    ChainWriteFailed,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

Args = Mapping[str, Any]
Outcome = Answer | ChainError
T = TypeVar("T")


def outcome_of(call: Callable[[], T], args: Args) -> T | ChainError:
    """Whatever the call raises is an outcome, also the panic of a library in Rust, which is no Exception; a fault of
    ours is logged."""
    try:
        return call()
    except BaseException as error:  # noqa: BLE001  `chain_error` logs what nobody expected
        return chain_error(error, args)


def chain_error(error: BaseException, args: Args) -> ChainError:
    """An error of the port, or of ours, as the API tells it. `args` are those of the call."""
    if isinstance(error, ChainError):
        return error
    for kind, told in _TOLD.items():
        if isinstance(error, kind):
            return told(error, args)
    log.error("a call of the chain failed", exc_info=error)
    return ChainFault()


def _subnet_unknown(_error: BaseException, args: Args) -> ChainError:
    return ChainNotFound(f"Subnet {args.get('netuid')} not found.")


def _block_unknown(_error: BaseException, args: Args) -> ChainError:
    if args.get("number") is None:
        return ChainUnreachable("Chain node is unreachable: the newest block was undone")
    return ChainNotFound(f"Block {args['number']} not found.")


def _unreachable(error: BaseException, _args: Args) -> ChainError:
    return ChainUnreachable(f"Chain node is unreachable: {error}")


def _write_failed(error: BaseException, _args: Args) -> ChainError:
    return ChainWriteFailed(str(error))


def _no_database(_error: BaseException, _args: Args) -> ChainError:
    return ChainUnreachable("Chain node is unreachable: the database is not available")


_TOLD: dict[type[Exception], Callable[[BaseException, Args], ChainError]] = {
    SubnetUnknown: _subnet_unknown,
    BlockUnknown: _block_unknown,
    NodeUnreachable: _unreachable,
    WriteRefused: _write_failed,
    WriteUncertain: _write_failed,
    StoreUnavailable: _no_database,
}
