"""What can be wrong with a model. The node turns these into answers; their text may be shown to whoever sent it."""


class ModelError(Exception):
    """The text says what is wrong in words of ours; it never carries a message of torch or of the model."""


class InvalidModel(ModelError):
    """The bytes are not what their format says, or do not fit the architecture or signature."""


class NotRunnable(ModelError):
    """This process has no way to run such a model."""


class InferenceFailed(ModelError):
    """The model raised, or gave something other than the tensors it should give."""


class ValueOutOfRange(ModelError):
    """A value cannot be shared with the precision asked for; the text names the tensor."""
