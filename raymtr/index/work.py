"""Units of work of a build, which a mapper runs in this process or in workers.

A unit is a function and its argument; both can be pickled. `raymtr.index.publish` decides what a
build consists of; a mapper only decides where the work runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Mapper(Protocol):
    """Applies a function to each item, in this process or in workers."""

    def __call__(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The results, in the order of `items`. Raises what `work` raises."""


def in_this_process(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The mapper without other processes: one item after the other."""
    return [work(item) for item in items]
