"""The counter by which every process notices that someone else's right to be here may have changed."""

from sqlalchemy import select, text

from grid_node.database import Transaction
from grid_node.identity.tables import KeyEpoch

_READ = select(KeyEpoch.__table__.c.value)
_BUMP = text(
    "INSERT INTO key_epoch (id, value) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET value = key_epoch.value + 1"
)


def bump_epoch(tx: Transaction) -> None:
    """First statement of every change. On PostgreSQL its row lock makes all changes follow one another."""
    tx.execute(_BUMP)


def read_epoch(tx: Transaction) -> int:
    return tx.execute(_READ).scalar() or 0
