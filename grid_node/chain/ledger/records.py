"""Commitments, certificates and extrinsics, read from the ledger's rows."""

import json
from typing import Any

from sqlalchemy import bindparam, select

from grid_node.chain.ledger.blocks import hash_of
from grid_node.chain.ledger.history import valid
from grid_node.chain.ledger.tables import ChainBlock, ChainCertificate, ChainCommitment, ChainExtrinsic
from grid_node.chain.ports import Block, Certificate, Commitment, Landed
from grid_node.database import Transaction
from grid_node.statements import prepared

TIMESTAMP_LENGTH = 10
"""Bytes of `Timestamp.set` on a chain: version, pallet, call, and the milliseconds as a compact number of 7 bytes."""

_COMMITMENT = select(ChainCommitment.hotkey, ChainCommitment.data, ChainCommitment.valid_from).where(
    valid(ChainCommitment)
)
_COMMITMENTS = prepared(_COMMITMENT.order_by(ChainCommitment.valid_from, ChainCommitment.hotkey))
_ONE_COMMITMENT = prepared(_COMMITMENT.where(ChainCommitment.hotkey == bindparam("hotkey")))
_CERTIFICATE = select(ChainCertificate.hotkey, ChainCertificate.algorithm, ChainCertificate.public_key).where(
    valid(ChainCertificate)
)
_CERTIFICATES = prepared(_CERTIFICATE.order_by(ChainCertificate.valid_from, ChainCertificate.hotkey))
_ONE_CERTIFICATE = prepared(_CERTIFICATE.where(ChainCertificate.hotkey == bindparam("hotkey")))
_EXTRINSIC = prepared(
    select(
        ChainExtrinsic.hash,
        ChainExtrinsic.address,
        ChainExtrinsic.length,
        ChainExtrinsic.module,
        ChainExtrinsic.function,
        ChainExtrinsic.args,
    ).where(ChainExtrinsic.block == bindparam("block"), ChainExtrinsic.index == bindparam("index"))
)
_LANDED = prepared(
    select(ChainBlock.number, ChainBlock.hash, ChainBlock.at)
    .join(ChainExtrinsic, ChainExtrinsic.block == ChainBlock.number)
    .where(ChainExtrinsic.hash == bindparam("extrinsic"))
)


def commitments(tx: Transaction, netuid: int, block: int) -> list[Commitment]:
    return [Commitment(*row) for row in tx.execute(_COMMITMENTS, {"netuid": netuid, "block": block})]


def commitment(tx: Transaction, netuid: int, hotkey: str, block: int) -> Commitment | None:
    row = tx.execute(_ONE_COMMITMENT, {"netuid": netuid, "block": block, "hotkey": hotkey}).one_or_none()
    return row and Commitment(*row)


def certificates(tx: Transaction, netuid: int, block: int) -> dict[str, Certificate]:
    rows = tx.execute(_CERTIFICATES, {"netuid": netuid, "block": block})
    return {row.hotkey: Certificate(row.algorithm, row.public_key) for row in rows}


def certificate(tx: Transaction, netuid: int, hotkey: str, block: int) -> Certificate | None:
    row = tx.execute(_ONE_CERTIFICATE, {"netuid": netuid, "block": block, "hotkey": hotkey}).one_or_none()
    return row and Certificate(row.algorithm, row.public_key)


def landed(tx: Transaction, extrinsic_hash: str) -> Landed | None:
    row = tx.execute(_LANDED, {"extrinsic": extrinsic_hash}).one_or_none()
    return row and Landed(Block(row.number, row.hash, int(row.at)), extrinsic_hash)


def extrinsic(tx: Transaction, block: Block, index: int) -> dict[str, Any] | None:
    """In Pylon's shape; None: the block has fewer."""
    if index == 0:
        return _timestamp(block)
    row = tx.execute(_EXTRINSIC, {"block": block.number, "index": index}).one_or_none()
    if row is None:
        return None
    call = _call(row.module, row.function, json.loads(row.args))
    return _extrinsic(block, index, row.hash, row.length, row.address, call)


def _timestamp(block: Block) -> dict[str, Any]:
    name = hash_of(bytes.fromhex(block.hash[2:]), b"timestamp")
    now = [{"name": "now", "type": "Moment", "value": block.timestamp * 1000}]
    return _extrinsic(block, 0, name, TIMESTAMP_LENGTH, None, _call("Timestamp", "set", now))


def _call(module: str, function: str, args: list[dict[str, Any]]) -> dict[str, Any]:
    return {"call_module": module, "call_function": function, "call_args": args}


def _extrinsic(
    block: Block, index: int, name: str, length: int, address: str | None, call: dict[str, Any]
) -> dict[str, Any]:
    return {
        "block_number": block.number,
        "extrinsic_index": index,
        "extrinsic_hash": name,
        "extrinsic_length": length,
        "address": address,
        "call": call,
    }
