"""Calls into Ray with the types that strict checking needs. Written for ray 2.60.

Ray annotates a batch as the union of all its formats, and a remote function by its positional
arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import pyarrow as pa

if TYPE_CHECKING:
    import ray
    import ray.data

R = TypeVar("R")


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
