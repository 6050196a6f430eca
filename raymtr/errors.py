"""The failures a user can meet, kept apart because the cure is in different hands.

Everything else that is raised is a bug and keeps its traceback. Messages name what was seen, what
was expected, and the cure; the command line's exit status of each stands in jobs/__main__.py.
"""


class InputError(ValueError):
    """What was asked is wrong: an unknown setting, a missing column, duplicate ids."""


class UnusableError(RuntimeError):
    """What was asked is right, but this machine or this data cannot give it: no GPU, no disk."""


class TooBusyError(UnusableError):
    """This machine is too slow at the moment for what it can do at another time."""


class LostError(RuntimeError):
    """Nothing is wrong with what was asked: a node, or the whole cluster, went away. Try again."""
