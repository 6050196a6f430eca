"""The two failures a user can meet, kept apart because the cure is in different hands.

Everything else that is raised is a bug and keeps its traceback. The command line maps
`InputError` to exit 2 and `UnusableError` to exit 1; messages name what was seen, what was
expected, and the cure.
"""


class InputError(ValueError):
    """What was asked is wrong: an unknown setting, a missing column, duplicate ids."""


class UnusableError(RuntimeError):
    """What was asked is right, but this machine or this data cannot give it: no GPU, no disk."""
