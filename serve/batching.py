"""Dynamic batching: items that arrive while the model runs form its next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class DynamicBatcher(Generic[Item, Result]):
    """Runs one batch at a time, in a thread. An idle batcher starts at once, with one item.

    Ray Serve's own batching waits a fixed time for more items, and closes a batch while another is
    still running. A lone request loses that time, and under load the batches stay small.
    """

    def __init__(self, run: Callable[[list[Item]], list[Result]], *, max_batch_size: int) -> None:
        self._run, self._max_batch_size = run, max_batch_size
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """The result of `item`. Raises any exception of its batch's run."""
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_all())
        return await result

    async def _run_all(self) -> None:
        while batch := self._next_batch():
            items = [item for item, _ in batch]
            run = asyncio.get_running_loop().run_in_executor(None, self._run, items)
            await asyncio.wait([run])
            for place, (_, result) in enumerate(batch):
                if result.done():
                    continue
                if error := run.exception():
                    result.set_exception(error)
                else:
                    result.set_result(run.result()[place])
        self._runner = None

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._max_batch_size:
            item, result = self._waiting.popleft()
            if not result.done():  # else its request was cancelled
                batch.append((item, result))
        return batch
