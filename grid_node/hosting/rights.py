"""Who may do what with a hosted model: every rule in one place."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Protocol

from grid_node.errors import DownloadNotAllowed, Forbidden, InferenceNotAllowed, MissingKey, ModelNotFound
from grid_node.hosting.tables import ANONYMOUS

ADMIN = "models:admin"
CODE = "models:code"


@dataclass(frozen=True, slots=True)
class ModelCaller:
    """Who asks. `key_id` is ANONYMOUS without a key; `token` opens one share, see `exists_for`."""

    key_id: str = ANONYMOUS
    scopes: frozenset[str] = frozenset()
    token: str | None = None

    @property
    def is_anonymous(self) -> bool:
        return self.key_id == ANONYMOUS

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.scopes

    @property
    def may_bring_code(self) -> bool:
        return CODE in self.scopes


class Owned(Protocol):
    """What the rules look at in a row."""

    @property
    def owner(self) -> str: ...
    @property
    def hidden(self) -> bool: ...
    @property
    def share_token_sha256(self) -> str | None: ...
    @property
    def allow_download(self) -> bool: ...
    @property
    def allow_remote_inference(self) -> bool: ...


def owns(caller: ModelCaller, owner: str) -> bool:
    """Whoever served it; what was served without a key is everybody's."""
    return owner in (caller.key_id, ANONYMOUS)


def exists_for(caller: ModelCaller, row: Owned) -> bool:
    """A share exists for the key that placed it, and for who shows its token."""
    return not row.hidden or caller.key_id == row.owner or opens(caller.token, row.share_token_sha256)


def opens(token: str | None, sha256: str | None) -> bool:
    """Whether `token` is the one whose digest a share keeps."""
    if token is None or sha256 is None:
        return False
    return hmac.compare_digest(hashlib.sha256(token.encode("utf-8", "replace")).hexdigest(), sha256)


def require_download(caller: ModelCaller, row: Owned) -> None:
    """Raises ModelNotFound, DownloadNotAllowed."""
    if not exists_for(caller, row):
        raise ModelNotFound()
    if not may_download(caller, row):
        raise DownloadNotAllowed()


def may_download(caller: ModelCaller, row: Owned) -> bool:
    """A share may be read by whoever it exists for; every other model by its flag."""
    return exists_for(caller, row) if row.hidden else row.allow_download


def require_inference(caller: ModelCaller, row: Owned) -> None:
    """Raises ModelNotFound, InferenceNotAllowed."""
    if not exists_for(caller, row):
        raise ModelNotFound()
    if not row.allow_remote_inference:
        raise InferenceNotAllowed()


def require_change(caller: ModelCaller, row: Owned) -> None:
    """New version and deletion are for the owner and for administrators; a share's token is for reading alone.

    Raises ModelNotFound, MissingKey, Forbidden.
    """
    if row.hidden:
        if caller.key_id != row.owner:
            raise ModelNotFound()
    elif not owns(caller, row.owner) and not caller.is_admin:
        raise MissingKey() if caller.is_anonymous else Forbidden("Only its owner may change this")
