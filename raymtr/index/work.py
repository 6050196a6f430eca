"""Units of work of a build, which a mapper hands to this process or to workers.

A unit is a function and its arguments, and both can be sent to another process. What a build
consists of is decided in one place (`raymtr.index.publish`); a mapper only says where it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Mapper(Protocol):
    """Does the same work for each item, somewhere."""

    def __call__(self, work: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """The answers, in the order of `items`. Raises what `work` raises."""


def in_this_process(work: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
    """A mapper without other processes: one item after the other."""
    return [work(item) for item in items]
