"""In whose place a command of an operator acts."""

from grid_node.cli.answers import fail
from grid_node.hosting.rights import ADMIN, ModelCaller
from grid_node.hosting.tables import ANONYMOUS
from grid_node.services import services


def acting_for(key_id: str) -> ModelCaller:
    """The operator, in the place of the key with this id; ends the command when there is none."""
    if key_id != ANONYMOUS and not any(info.id == key_id for info in services().keys.all_keys()):
        raise fail("No API key has this id: see `flask keys list`", 1)
    return ModelCaller(key_id, frozenset({ADMIN}))
