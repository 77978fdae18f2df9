"""Which model and version a client means: `owner/name`, `owner/name:<version>`, or a version alone."""

import re
from typing import Any, NamedTuple

from sqlalchemy import bindparam, or_, select

from grid_node.database import Transaction
from grid_node.errors import ModelNotFound, UnknownVersion
from grid_node.runners.models import PUBLIC, READY, models, signature_at, versions, visible
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.signature import Signature
from grid_node.statements import prepared

VERSION = re.compile(r"[0-9a-f]{64}")
_NAMED = re.compile(r"(?P<account>[^/:\s]{1,64})/(?P<name>[^/:\s]{1,63})(:(?P<version>[0-9a-f]{64}))?")
_WITH_VERSION = prepared(
    select(models)
    .join(versions, versions.c.model_id == models.c.id)
    .where(
        versions.c.version == bindparam("version"),
        models.c.state == READY,
        or_(models.c.owner == bindparam("me"), models.c.visibility == PUBLIC),
    )
    .order_by(models.c.created_at, models.c.id)
)


class Reference(NamedTuple):
    """`account` and `name` (or id) of a model, its version, or both."""

    account: str | None
    name: str | None
    version: str | None


class Choice(NamedTuple):
    """The row of the model, and what its input must be."""

    model: Any
    version: str
    signature: Signature


def parse_version(text: str) -> Reference:
    """The member `version` of a request. Raises UnknownVersion."""
    if VERSION.fullmatch(text):
        return Reference(None, None, text)
    named = _NAMED.fullmatch(text)
    if named is None:
        raise UnknownVersion()
    return Reference(named["account"], named["name"], named["version"])


def choose(tx: Transaction, caller: RunnerCaller, reference: Reference) -> Choice:
    """Raises ModelNotFound, UnknownVersion."""
    if reference.account is None or reference.name is None:
        model = _with_version(tx, caller, reference.version or "")
    else:
        model = named(tx, caller, reference.account, reference.name)
    version = reference.version or model.version
    signature = signature_at(tx, model.id, version)
    if signature is None:
        raise UnknownVersion()
    return Choice(model, version, signature)


def named(tx: Transaction, caller: RunnerCaller, account: str, name_or_id: str) -> Any:
    """The row of a model that this caller may run, however odd the words of an address. Raises ModelNotFound."""
    if "\0" in account or "\0" in name_or_id:
        raise ModelNotFound()
    return visible(tx, caller, account, name_or_id)


def choose_version(tx: Transaction, caller: RunnerCaller, reference: Reference) -> Choice:
    """The same, where the model too was named as a version. Raises UnknownVersion."""
    try:
        return choose(tx, caller, reference)
    except ModelNotFound:
        raise UnknownVersion() from None


def _with_version(tx: Transaction, caller: RunnerCaller, version: str) -> Any:
    """A version is the digest of a signature, and several models may have the same one: the caller's own come first,
    then those that have it now, then the oldest, so that nobody's later model takes calls from another's."""
    rows = tx.execute(_WITH_VERSION, {"version": version, "me": caller.owner}).all()
    if not rows:
        raise UnknownVersion()
    return min(rows, key=lambda row: (row.owner != caller.owner, row.version != version))
