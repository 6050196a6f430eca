"""Dynamic batching: none waits on an idle encoder, none is lost or mixed up."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from raymtr.embeddings.store import ModelRef
from serve.batching import DynamicBatcher
from serve.encoders import Job
from serve.messages import Vectors

MADE_BY = ModelRef(fingerprint="f", precision="fp32", dim=1)


class SlowRun:
    """A run of a batch that ends when it is told to."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.go = threading.Event()

    def run(self, jobs: list[Job[list[str]]]) -> list[Any]:
        said = [sentence for _, (sentence,) in jobs]
        self.seen.append(said)
        assert self.go.wait(600)
        if "bad" in said:
            raise ValueError("bad")
        return [Vectors(np.array([[len(one)]]), len(jobs)) for one in said]


async def until_a_batch_runs(slow: SlowRun) -> None:
    while not slow.seen:
        await asyncio.sleep(0.001)


def test_items_that_arrive_during_a_batch_share_the_next() -> None:
    async def ask() -> None:
        slow = SlowRun()
        batcher = DynamicBatcher(slow.run, max_batch_size=3)
        first = asyncio.create_task(batcher.submit((MADE_BY, ["a"])))
        await until_a_batch_runs(slow)  # though nobody else has come
        words = ["bb", "ccc", "dddd", "eeeee"]
        later = [asyncio.create_task(batcher.submit((MADE_BY, [word]))) for word in words]
        await asyncio.sleep(0.01)
        slow.go.set()
        vectors = await asyncio.gather(first, *later)
        assert [int(v.rows[0, 0]) for v in vectors] == [1, 2, 3, 4, 5]
        assert slow.seen == [["a"], words[:3], words[3:]]
        assert [v.batch for v in vectors] == [1, 3, 3, 3, 1]
        assert (await batcher.submit((MADE_BY, ["again"]))).batch == 1

    asyncio.run(ask())


def test_a_failed_batch_and_a_cancelled_request_harm_no_other() -> None:
    async def ask() -> None:
        slow = SlowRun()
        batcher = DynamicBatcher(slow.run, max_batch_size=1)
        bad = asyncio.create_task(batcher.submit((MADE_BY, ["bad"])))
        await until_a_batch_runs(slow)
        given_up = asyncio.create_task(batcher.submit((MADE_BY, ["never"])))
        good = asyncio.create_task(batcher.submit((MADE_BY, ["good"])))
        await asyncio.sleep(0.01)
        given_up.cancel()
        slow.go.set()
        with pytest.raises(ValueError, match="bad"):
            await bad
        assert int((await good).rows[0, 0]) == 4
        assert slow.seen == [["bad"], ["good"]]

    asyncio.run(ask())


def test_where_every_request_was_cancelled_no_empty_batch_runs() -> None:
    async def ask() -> None:
        slow = SlowRun()
        batcher = DynamicBatcher(slow.run, max_batch_size=1)
        first = asyncio.create_task(batcher.submit((MADE_BY, ["a"])))
        await until_a_batch_runs(slow)
        given_up = asyncio.create_task(batcher.submit((MADE_BY, ["never"])))
        await asyncio.sleep(0.01)
        given_up.cancel()
        slow.go.set()
        await first
        assert (await batcher.submit((MADE_BY, ["b"]))).batch == 1
        assert slow.seen == [["a"], ["b"]]

    asyncio.run(ask())
