"""References to blobs, kept in the transaction of the rows that need them; the sweep spares what is referred to."""

from collections.abc import Iterable

from sqlalchemy import bindparam, delete, select, text

from grid_node.blobs.tables import BlobReference
from grid_node.database import Store, Transaction
from grid_node.statements import prepared

references = BlobReference.__table__

_REFER = prepared(text("INSERT INTO blob_references (sha256, owner) VALUES (:sha256, :owner) ON CONFLICT DO NOTHING"))
_REFERRED = select(references.c.sha256).where(references.c.sha256.in_(bindparam("digests", expanding=True))).distinct()


def refer(tx: Transaction, owner: str, digests: Iterable[str]) -> None:
    """`owner` needs these blobs from now on."""
    for sha256 in digests:
        tx.execute(_REFER, {"sha256": sha256, "owner": owner})


def release(tx: Transaction, owners: Iterable[str]) -> None:
    """These owners need nothing any more."""
    tx.execute(delete(references).where(references.c.owner.in_(list(owners))))


def referred(store: Store, digests: list[str]) -> set[str]:
    """Those of the digests that somebody needs; the answer that `Blobs.sweep` asks for."""
    return store.read(lambda tx: set(tx.execute(_REFERRED, {"digests": digests}).scalars()))
