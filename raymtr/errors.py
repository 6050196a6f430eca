"""The errors that users can meet, distinguished by who can fix them.

Any other exception is a bug and keeps its traceback. Messages name what was seen, what was
expected, and the cure. jobs/__main__.py maps each class to an exit status of the command line.
"""


class InputError(ValueError):
    """The request is wrong: an unknown setting, a missing column, duplicate ids."""


class UnusableError(RuntimeError):
    """The request is right, but this machine or this data cannot fulfil it: no GPU, no disk."""


class TooBusyError(UnusableError):
    """This machine is too busy at the moment; the same request can succeed later."""


class LostError(RuntimeError):
    """The request is right, but a node or the whole cluster was lost. Try again."""
