"""What an operator is told when a command changed nothing."""


class Refused(ValueError):
    """Nothing was changed; the text is one line, says why, and never holds a key."""
