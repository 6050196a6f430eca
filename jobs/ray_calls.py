"""Calls into Ray with the types that strict checking needs. Written for ray 2.60.

Ray annotates a batch as the union of all its formats, and a remote function by its positional
arguments alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import pyarrow as pa

if TYPE_CHECKING:
    import ray
    import ray.data

R = TypeVar("R")
Item = TypeVar("Item")


def arrow_batches(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """The blocks of `dataset` as Arrow tables, as they arrive."""
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield cast(pa.Table, batch)


def ray_task(
    function: Callable[..., R],
    *,
    num_cpus: float,
    max_retries: int = 3,
    memory: int | None = None,
    strategy: Literal["DEFAULT", "SPREAD"] = "DEFAULT",
) -> Callable[..., ray.ObjectRef[R]]:
    """`function` as a Ray task; a call returns the reference of its result.

    An argument may be a reference to a value. `memory` is in bytes, `strategy` is Ray's
    `scheduling_strategy`.
    """
    import ray

    options: dict[str, Any] = {} if memory is None else {"memory": memory}
    as_task = ray.remote(
        num_cpus=num_cpus, max_retries=max_retries, scheduling_strategy=strategy, **options
    )
    return cast("Callable[..., ray.ObjectRef[R]]", as_task(function).remote)


def run_tasks(
    start: Callable[[Item], ray.ObjectRef[R]], items: Sequence[Item], *, at_once: int
) -> Iterator[tuple[int, R]]:
    """Runs a task per item, `at_once` in parallel; yields (index of the item, result) as they end.

    Raises what a task raises. The tasks that still run are then interrupted. They are not killed:
    if `force=True` meets a task that just ended, Ray 2.60 aborts the calling process.
    """
    import ray

    waiting = deque(enumerate(items))
    running: dict[ray.ObjectRef[R], int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                index, item = waiting.popleft()
                running[start(item)] = index
            [ended], _ = ray.wait(list(running))
            index = running.pop(ended)
            try:
                result = ray.get(ended)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            yield index, result
    finally:
        for other in running:
            ray.cancel(other)
