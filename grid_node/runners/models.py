"""Rows of registered models and of the signatures that they have or had."""

import re
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, text, update

from grid_node.database import Transaction
from grid_node.errors import ModelNameTaken, ModelNotFound
from grid_node.runners.ids import MODEL_ID, MODEL_NAME
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.prediction import predictions
from grid_node.runners.signature import Signature, signature_of
from grid_node.runners.tables import RunnerAgent, RunnerModel, RunnerRequest, RunnerVersion
from grid_node.statements import prepared

PENDING, READY, FAILED, CLEANUP, DELETING = "pending", "ready", "failed", "cleanup", "deleting"
LIVING = (PENDING, READY)
"""States in which a model is there for its owner. In the others its tunnel is on the way out: FAILED right after a
registration that failed, CLEANUP when undoing it failed too, DELETING when its owner removed it."""
PUBLIC, PRIVATE = "public", "private"
ACCOUNT = re.compile(r"[!-~]{1,64}")
"""Whatever may be asked for as the owner of a model."""
VERSIONS_MAX = 100
"""Signatures of one model that are kept, newest first, beside those that predictions still need."""

models: Any = RunnerModel.__table__
versions: Any = RunnerVersion.__table__
agents: Any = RunnerAgent.__table__
requests: Any = RunnerRequest.__table__

_LIVES = or_(models.c.state == PENDING, models.c.state == READY)
_IS = models.c.id == bindparam("id")
_BY_ID = prepared(select(models).where(_IS))
_HELD = prepared(select(models).where(_IS).with_for_update())
_OWNED = select(models).where(_IS, models.c.owner == bindparam("owner"), _LIVES)
_FIND_OWNED = prepared(_OWNED)
_HOLD_OWNED = prepared(_OWNED.with_for_update())
_FIND_VISIBLE = prepared(
    select(models)
    .where(
        models.c.account == bindparam("account"),
        or_(models.c.name == bindparam("word"), models.c.id == bindparam("word")),
        or_(models.c.owner == bindparam("me"), models.c.visibility == PUBLIC),
        models.c.state == READY,
    )
    .order_by(models.c.created_at, models.c.id)
)
_SIGNATURE = prepared(
    select(versions.c.signature).where(
        versions.c.model_id == bindparam("model_id"), versions.c.version == bindparam("version")
    )
)
_ANY = prepared(select(models.c.id).limit(1))
_COUNT_RUN = prepared(
    update(models)
    .where(models.c.id == bindparam("model_id"), models.c.state == READY)
    .values(run_count=models.c.run_count + 1)
)


def model_by_id(tx: Transaction, id: str) -> Any:
    """The row in whatever state, or None."""
    return tx.execute(_BY_ID, {"id": id}).one_or_none()


def held_model(tx: Transaction, id: str) -> Any:
    """The same row, which nobody else changes until the transaction ends."""
    return tx.execute(_HELD, {"id": id}).one_or_none()


def owned(tx: Transaction, owner: str, id: str, *, hold: bool = False) -> Any:
    """A model that is there and belongs to this key; everybody else's is not found. Raises ModelNotFound."""
    statement = _HOLD_OWNED if hold else _FIND_OWNED
    row = tx.execute(statement, {"owner": owner, "id": id}).one_or_none() if MODEL_ID.fullmatch(id) else None
    if row is None:
        raise ModelNotFound()
    return row


def visible(tx: Transaction, caller: RunnerCaller, account: str, name_or_id: str) -> Any:
    """What `account/name_or_id` stands for to this caller: a ready model that is his or public. Several keys may go by
    one name: the caller's own model comes first, then the oldest; a name before an id. Raises ModelNotFound."""
    if not MODEL_NAME.fullmatch(name_or_id) or not ACCOUNT.fullmatch(account):
        raise ModelNotFound()
    rows = tx.execute(_FIND_VISIBLE, {"account": account, "word": name_or_id, "me": caller.owner}).all()
    if not rows:
        raise ModelNotFound()
    return min(rows, key=lambda row: (row.owner != caller.owner, row.name != name_or_id))


def signature_at(tx: Transaction, model_id: str, version: str) -> Signature | None:
    """The signature of this model under this version; None when it never had that."""
    kept = tx.execute(_SIGNATURE, {"model_id": model_id, "version": version}).scalar()
    return None if kept is None else signature_of(kept)


# --- what registration writes ---------------------------------------------------------------------------------------

_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(hashtext('runner models ' || :owner))")
_COUNT = prepared(select(func.count()).where(models.c.owner == bindparam("owner"), _LIVES))
_NAMED = prepared(
    select(models.c.id).where(
        models.c.owner == bindparam("owner"),
        models.c.name == bindparam("name"),
        models.c.id != bindparam("id"),
    )
)
_PAGE = prepared(
    select(models)
    .where(
        models.c.owner == bindparam("owner"),
        _LIVES,
        or_(
            models.c.created_at > bindparam("at"),
            and_(models.c.created_at == bindparam("at"), models.c.id > bindparam("id")),
        ),
    )
    .order_by(models.c.created_at, models.c.id)
    .limit(bindparam("size"))
)
_DUE = prepared(
    select(models)
    .where(models.c.due_at <= bindparam("now"))
    .order_by(models.c.due_at)
    .limit(bindparam("size"))
    .with_for_update(skip_locked=True)
)
_ADD_VERSION = prepared(
    text(
        "INSERT INTO runner_versions (model_id, version, signature, created_at)"
        " VALUES (:model_id, :version, :signature, :at) ON CONFLICT DO NOTHING"
    )
)
_VERSIONS = prepared(
    select(versions.c.version)
    .where(versions.c.model_id == bindparam("id"))
    .order_by(versions.c.created_at.desc(), versions.c.version)
)
_IN_USE = prepared(
    select(predictions.c.version)
    .where(predictions.c.model_id == bindparam("id"), predictions.c.finished_at.is_(None))
    .distinct()
)
_FORGET_VERSION = prepared(
    delete(versions).where(versions.c.model_id == bindparam("id"), versions.c.version == bindparam("word"))
)
_REMOVALS = [
    prepared(delete(versions).where(versions.c.model_id == bindparam("of"))),
    prepared(delete(agents).where(agents.c.model_id == bindparam("of"))),
    prepared(delete(models).where(models.c.id == bindparam("of"))),
]
_FORGET_REQUEST = prepared(
    delete(requests).where(requests.c.owner == bindparam("of_owner"), requests.c.made == bindparam("of"))
)
_BUSY = (predictions.c.model_id == bindparam("id"), predictions.c.finished_at.is_(None))
_ACTIVE = prepared(select(predictions.c.number).where(*_BUSY).limit(1))


def lock_owner(tx: Transaction, owner: str) -> None:
    """Names and numbers of this key's models change in no other transaction until this one ends."""
    if tx.is_postgresql:
        tx.execute(_LOCK_OWNER, {"owner": owner})


def count_of(tx: Transaction, owner: str) -> int:
    return int(tx.execute(_COUNT, {"owner": owner}).scalar())


def check_name_free(tx: Transaction, owner: str, name: str, id: str) -> None:
    """Raises ModelNameTaken when another model than `id` has it."""
    if tx.execute(_NAMED, {"owner": owner, "name": name, "id": id}).one_or_none() is not None:
        raise ModelNameTaken()


def insert_model(tx: Transaction, values: dict[str, Any]) -> None:
    tx.execute(insert(models).values(**values))


def change_model(tx: Transaction, id: str, **values: Any) -> None:
    """Write these columns of a row that is held."""
    tx.execute(update(models).where(models.c.id == id).values(**values))


def add_version(tx: Transaction, model_id: str, signature: Signature, now: float) -> None:
    """Keep the signature under its version, and of the older ones the newest and those that predictions need."""
    given = {"model_id": model_id, "version": signature.version, "signature": signature.text, "at": now}
    tx.execute(_ADD_VERSION, given)
    known = [row.version for row in tx.execute(_VERSIONS, {"id": model_id})]
    if len(known) > VERSIONS_MAX:
        needed = {row.version for row in tx.execute(_IN_USE, {"id": model_id})} | {signature.version}
        for version in known[VERSIONS_MAX:]:
            if version not in needed:
                tx.execute(_FORGET_VERSION, {"id": model_id, "word": version})


def page_of(tx: Transaction, owner: str, at: float, id: str, size: int) -> list[Any]:
    """At most `size` of this key's models, oldest first, behind the one with `id` that was made `at`."""
    return list(tx.execute(_PAGE, {"owner": owner, "at": at, "id": id, "size": size}))


def due_models(tx: Transaction, now: float, size: int) -> list[Any]:
    """Rows that the janitor must look at, held."""
    return list(tx.execute(_DUE, {"now": now, "size": size}))


def is_busy(tx: Transaction, id: str) -> bool:
    """Whether predictions of this model wait or run."""
    return tx.execute(_ACTIVE, {"id": id}).one_or_none() is not None


def forget_request(tx: Transaction, owner: str, id: str) -> None:
    """The request that made this model made nothing that is there: sent again, it is done anew."""
    tx.execute(_FORGET_REQUEST, {"of_owner": owner, "of": id})


def remove_model(tx: Transaction, id: str) -> None:
    """The row and what is kept with it. Its predictions stay."""
    for statement in _REMOVALS:
        tx.execute(statement, {"of": id})


def any_model(tx: Transaction) -> bool:
    """Whether anybody has registered one."""
    return tx.execute(_ANY).one_or_none() is not None


def count_run(tx: Transaction, id: str) -> bool:
    """One prediction more. False for a model that is not ready; its row is held until the transaction ends."""
    return bool(tx.execute(_COUNT_RUN, {"model_id": id}).rowcount)
