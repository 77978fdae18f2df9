"""Rows that say from which block to which they hold: how one version takes the place of another."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, insert, update

from grid_node.chain.ledger.tables import OPEN, ChainCertificate, ChainCommitment, ChainNeuron, ChainWeightRow
from grid_node.database import Transaction

Versioned = type[ChainNeuron] | type[ChainWeightRow] | type[ChainCommitment] | type[ChainCertificate]


def valid(model: Versioned) -> ColumnElement[bool]:
    """The rows of subnet `:netuid` that hold at block `:block`."""
    return and_(
        model.netuid == bindparam("netuid"),
        model.valid_to > bindparam("block"),
        model.valid_from <= bindparam("block"),
    )


def put(tx: Transaction, model: Versioned, key: Mapping[str, Any], values: Mapping[str, Any], block: int) -> None:
    """From `block` on the row named by `key` says `values`."""
    end(tx, model, key, block)
    tx.execute(insert(model), {**key, **values, "valid_from": block, "valid_to": OPEN})


def end(tx: Transaction, model: Versioned, key: Mapping[str, Any], block: int) -> None:
    """From `block` on there is no row named by `key`."""
    named = [model.__table__.c[name] == value for name, value in key.items()]
    tx.execute(update(model).where(*named, model.valid_to == OPEN).values(valid_to=block))
