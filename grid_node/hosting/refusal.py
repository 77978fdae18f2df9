"""How a bad inference is refused."""

from grid_node.errors import InvalidPayload


def refused(problem: str, member: str = "_schema") -> InvalidPayload:
    """`error` itself says what is wrong and with which input: protocol clients show nothing else."""
    return InvalidPayload(problem, fields={member: [problem]})
