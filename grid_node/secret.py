"""The node's own random secret: from it come the view seeds that workers must not know."""

import os
import secrets
from pathlib import Path

SIZE = 32


def node_secret(data_dir: Path) -> bytes:
    """The secret of this data folder, made on first use with mode 0600. Several processes may race for it."""
    path = data_dir.resolve() / "node.secret"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_suffix(f".{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_bytes(secrets.token_bytes(SIZE))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()
