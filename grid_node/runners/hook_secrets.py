"""The secrets that sign clients' webhooks (https://www.standardwebhooks.com): one for each API key, encrypted."""

import base64
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import bindparam, select, text, update
from standardwebhooks import Webhook

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.runners.secrets_box import SecretsBox
from grid_node.runners.tables import RunnerHookSecret
from grid_node.statements import prepared

SIZE = 32
"""Bytes of a secret."""
OVERLAP = 86400.0
"""Seconds for which the secret before the last rotation still signs."""

kept = RunnerHookSecret.__table__
_FIND = prepared(select(kept).where(kept.c.owner == bindparam("owner")))

_MAKE = prepared(
    text(
        "INSERT INTO runner_hook_secrets (owner, box, previous, rotated_at) VALUES (:owner, :box, NULL, :at)"
        " ON CONFLICT (owner) DO NOTHING"
    )
)
_ROTATE = prepared(
    update(kept)
    .where(kept.c.owner == bindparam("of"))
    .values(box=bindparam("new"), previous=kept.c.box, rotated_at=bindparam("at"))
)


def fresh(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """`whsec_` and standard base64: clients split at the `_`, which the url-safe alphabet has too."""
    return f"whsec_{base64.b64encode(random(SIZE)).decode()}"


def signature(signers: list[str], id: str, at: float, body: str) -> str:
    """The header `webhook-signature`: one signature for each secret, separated by spaces.

    `at` is what the header `webhook-timestamp` says, whole seconds since 1970.
    """
    moment = datetime.fromtimestamp(int(at), UTC)
    return " ".join(Webhook(secret).sign(id, moment, body) for secret in signers)


class HookSecrets:
    """Made on first use."""

    def __init__(self, store: Store, clock: Clock, box: SecretsBox) -> None:
        self._store = store
        self._clock = clock
        self._box = box

    def key(self, owner: str) -> str:
        """The secret that signs from now on."""
        found = self._store.read(lambda tx: tx.execute(_FIND, {"owner": owner}).one_or_none())
        if found is not None:
            return self._box.open(found.box)
        return self._store.write(lambda tx: self.signers(tx, owner, self._clock.now())[0])

    def rotate(self, owner: str) -> str:
        """A new secret; the one before signs beside it for a day."""
        return self._store.write(partial(self._rotate, owner=owner))

    def _rotate(self, tx: Transaction, owner: str) -> str:
        now, new = self._clock.now(), fresh()
        self._made(tx, owner, now)
        tx.execute(_ROTATE, {"of": owner, "new": self._box.seal(new), "at": now})
        return new

    def signers(self, tx: Transaction, owner: str, now: float) -> list[str]:
        """The secrets that sign now, newest first; in a transaction that may write."""
        row = self._made(tx, owner, now)
        boxes = [row.box]
        if row.previous is not None and now < row.rotated_at + OVERLAP:
            boxes.append(row.previous)
        return [self._box.open(box) for box in boxes]

    def _made(self, tx: Transaction, owner: str, now: float) -> Any:
        row = tx.execute(_FIND, {"owner": owner}).one_or_none()
        if row is None:
            tx.execute(_MAKE, {"owner": owner, "box": self._box.seal(fresh()), "at": now})
            row = tx.execute(_FIND, {"owner": owner}).one()
        return row
