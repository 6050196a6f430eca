"""Ray tasks that write and index the partitions of a build."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import ray

from jobs.cluster import start_ray
from jobs.ray_calls import ray_task, run_tasks

TASK_STARTS = 4  # of one item, before the job gives up
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class RayTasks:
    """A mapper (raymtr.index.work) whose items are Ray tasks, at most `workers` at once.

    A task has one core and up to `memory_gb` of memory. One that is lost with its process or node
    is started again. Nothing of it was visible, because only this process commits.
    """

    def __init__(self, workers: int, *, memory_gb: float) -> None:
        self._workers, self._memory_gb = workers, memory_gb

    def __call__(self, work: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """The answers, in the order of `items`. Raises what `work` raises."""
        start_ray()
        task: Callable[..., ray.ObjectRef[Answer]] = ray_task(
            _on_one_core,
            num_cpus=1,
            memory=self._memory(),
            max_retries=TASK_STARTS - 1,
            strategy="SPREAD",
        )
        answers = dict(run_tasks(lambda item: task(work, item), items, at_once=self._workers))
        return [answers[index] for index in range(len(items))]

    def _memory(self) -> int:
        """Bytes to reserve for a task: no more than a node has, or it would wait forever."""
        nodes = [node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]]
        return int(min([self._memory_gb * 1e9, max(nodes)]))


def _on_one_core(work: Callable[[Item], Answer], item: Item) -> Answer:
    os.environ.setdefault("LANCE_CPU_THREADS", "1")  # read at Lance's first use in a process
    return work(item)
